"""Durations, moments and sizes as a person writes them in a pipeline file, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from trainflow.bounds import LONGEST_DURATION, clip
from trainflow.samples import partitions

_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UNIT_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_CALENDAR = re.compile(r"(?:(\d+)y)?(?:(\d+)mo)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ].*)?")
_SIZE = re.compile(r"(\d+)\s*([kMGT]?)(i?)B?")
_PREFIXES = " kMGT"

DURATION_HELP = "write a duration with units, largest first: 30s, 45m, 6h, 1d, 1h30m"
LENGTH_HELP = "write a fixed length (15m, 1h, 1d, 1w) or a calendar one (1mo, 3mo, 1y)"
MOMENT_HELP = "write a date (2013-01-01) or a date and time (2013-01-01T06:00:00Z); without a zone it is UTC"
SIZE_HELP = "write a number of bytes, or one with a unit: 512MB (10^6), 2GiB (2^30)"


def parse_duration(written: object) -> timedelta:
    """The duration of `1d`, `6h`, `45m` or `1h30m`. Raises ValueError for anything else, a bare number included."""
    match = _DURATION.fullmatch(written) if isinstance(written, str) and written else None
    if match is None:
        raise ValueError(f"{written!r} is not a duration; {DURATION_HELP}")
    amounts = zip(match.groups(), _UNIT_SECONDS.values(), strict=True)
    try:
        found = timedelta(seconds=sum(int(amount) * seconds for amount, seconds in amounts if amount))
    except (OverflowError, ValueError):  # more digits than Python reads
        found = timedelta.max
    if found > LONGEST_DURATION:
        raise ValueError(f"{clip(written)} is longer than {LONGEST_DURATION.days}d; {DURATION_HELP}")
    return found


def format_duration(duration: timedelta) -> str:
    """The shortest way to write a whole number of seconds: the inverse of `parse_duration`, weeks written as days."""
    return partitions.format_length(duration.days * 86_400 + duration.seconds)


class Length(NamedTuple):
    """The length of a partition: seconds, or calendar months; the other one is 0."""

    seconds: int = 0
    months: int = 0


def parse_length(written: object) -> Length:
    """The length of `1h`, `1d`, `1mo` (a month, from the start's day to the same day), `3mo` or `1y`. Raises ValueError
    for what is neither a duration nor a number of months, and for both in one."""
    match = _CALENDAR.fullmatch(written) if isinstance(written, str) and written else None
    if match is not None:
        return Length(months=12 * int(match[1] or 0) + int(match[2] or 0))
    try:
        return Length(seconds=int(parse_duration(written).total_seconds()))
    except ValueError:
        raise ValueError(f"{written!r} is not a length; {LENGTH_HELP}") from None


def format_length(length: Length) -> str:
    """The inverse of `parse_length`."""
    return partitions.format_length(length.seconds, length.months)


def parse_moment(written: object) -> datetime:
    """The moment of a date or of a date and time, aware UTC. Everything in a pipeline file is UTC: what names no zone
    is UTC by definition, what names another one is converted. Raises ValueError for what is no date."""
    if isinstance(written, str) and _DATE.fullmatch(written):
        try:
            moment = datetime.fromisoformat(written)
        except ValueError as error:
            raise ValueError(f"{written!r} is not a date ({error}); {MOMENT_HELP}") from None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    raise ValueError(f"{written!r} is not a date; {MOMENT_HELP}")


def format_moment(moment: datetime) -> str:
    """A date alone where the time is midnight, otherwise ISO 8601 ending in Z: the inverse of `parse_moment`."""
    moment = moment.astimezone(UTC)
    if moment == moment.replace(hour=0, minute=0, second=0, microsecond=0):
        return moment.date().isoformat()
    return moment.replace(tzinfo=None).isoformat() + "Z"


def parse_size(written: object) -> int:
    """Bytes of `1000`, `512MB` or `2GiB`. Raises ValueError for anything else."""
    if isinstance(written, int) and not isinstance(written, bool):
        return written
    match = _SIZE.fullmatch(written) if isinstance(written, str) else None
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{written!r} is not a size; {SIZE_HELP}")
    factor: int = (1024 if match[3] else 1000) ** (_PREFIXES.index(match[2]) if match[2] else 0)
    return int(match[1]) * factor
