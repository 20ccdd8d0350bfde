"""Where the partitions of a table begin and end: arithmetic over starts, nothing else.

Partitions of one table have one length - a fixed one, or calendar months - and are laid end to end from
`samples.start`, in UTC, so that daylight saving never makes one of them shorter. A month ends where the next one
begins, so nothing but this module adds a length to a start.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from trainflow.clock import ensure_utc
from trainflow.errors import InputError
from trainflow.samples.spec import Samples

#: a month as it is on average over the 400 years of the calendar
MONTH_SECONDS = 2_629_746
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


class Partitioning(Protocol):
    """What is cut into partitions: a table, or the grid of one."""

    @property
    def start(self) -> datetime:
        """Start of the first partition, aware."""
        ...

    @property
    def length_seconds(self) -> int:
        """Seconds a partition; 0: `length_months` counts."""
        ...

    @property
    def length_months(self) -> int:
        """Calendar months a partition; 0: `length_seconds` counts."""
        ...


class Partition(msgspec.Struct, frozen=True, order=True):
    """One time slice of a table, named by its start; `end` is exclusive, the watermark after training on it."""

    start: datetime
    end: datetime


def label(moment: datetime) -> str:
    """An instant for people: `2013-01-31T05:00Z`."""
    utc = moment if moment.tzinfo is None else ensure_utc(moment)
    return utc.isoformat(timespec="minutes" if not utc.second else "seconds").removesuffix("+00:00") + "Z"


def length_label(cut: Partitioning) -> str:
    """The length of a partition as it is written in a pipeline file: `1d`, `1h30m`, `3mo`, `1y`."""
    return format_length(cut.length_seconds, cut.length_months)


def format_length(seconds: int, months: int = 0) -> str:
    """The shortest way to write a length in a pipeline file: `1d`, `1h30m`, `3mo`, `1y`; `0s` for none."""
    if months:
        return f"{months}mo" if months % 12 else f"{months // 12}y"
    written = ""
    for unit, size in _UNITS:
        amount, seconds = divmod(seconds, size)
        written += f"{amount}{unit}" if amount else ""
    return written or "0s"


def mean_seconds(cut: Partitioning) -> float:
    """How long a partition is, on average: what a forecast goes by."""
    return cut.length_seconds or cut.length_months * MONTH_SECONDS


def shift(cut: Partitioning, start: datetime, count: int) -> datetime:
    """Start of the partition that is `count` after (before: negative) the one that starts at `start`."""
    if not cut.length_months:
        return start + timedelta(seconds=count * cut.length_seconds)
    years, month = divmod(start.year * 12 + start.month - 1 + count * cut.length_months, 12)
    return start.replace(year=years, month=month + 1)


def end_of(cut: Partitioning, start: datetime) -> datetime:
    """The exclusive end of the partition that starts at `start`."""
    return shift(cut, start, 1)


def origin(cut: Partitioning) -> datetime:
    """Start of the first partition. Raises InputError when it has no time zone."""
    return _aware(cut.start, "start")


def limit(samples: Samples) -> datetime | None:
    """The exclusive end of the table, or None when it goes on. Raises InputError when it has no time zone."""
    return None if samples.end is None else _aware(samples.end, "end")


def place_of(cut: Partitioning, moment: datetime) -> int:
    """The number of the last partition that does not start after `moment`; 0 is the first of the table, and what would
    be before that is counted below."""
    first, moment = origin(cut), ensure_utc(moment)
    if not cut.length_months:
        return (moment - first) // timedelta(seconds=cut.length_seconds)
    months = (moment.year - first.year) * 12 + moment.month - first.month
    place = months // cut.length_months
    return place - 1 if shift(cut, first, place) > moment else place


def is_boundary(cut: Partitioning, moment: datetime) -> bool:
    """Whether a partition starts at `moment` (or would, before the table's start)."""
    return shift(cut, origin(cut), place_of(cut, moment)) == ensure_utc(moment)


def at_or_after(cut: Partitioning, moment: datetime) -> datetime:
    """The first partition start that is not before `moment`."""
    return shift(cut, origin(cut), _place_at_or_after(cut, moment))


def containing(cut: Partitioning, moment: datetime) -> datetime | None:
    """Start of the partition that contains `moment`; None before the table's start."""
    place = place_of(cut, moment)
    return None if place < 0 else shift(cut, origin(cut), place)


def distance(cut: Partitioning, start: datetime, end: datetime) -> int:
    """How many partitions the stretch from `start` to `end` touches, both counted from the partition that `start` is
    in."""
    first, last = place_of(cut, start), place_of(cut, end)
    return last - first + (0 if is_boundary(cut, end) else 1)


def after_watermark(samples: Samples, watermark: datetime | None) -> datetime:
    """Start of the partition that comes next. Raises InputError for a watermark inside a partition: a part of that
    partition was trained on, so neither taking nor leaving it would be right."""
    if watermark is None:
        return origin(samples)
    start = at_or_after(samples, watermark)
    if start > ensure_utc(watermark) and start > origin(samples):
        raise InputError(
            f"the watermark {label(watermark)} is inside the partition {label(shift(samples, start, -1))}: partitions "
            f"start every {length_label(samples)} from {label(origin(samples))}. Was `start` or `length` of the "
            "samples changed? Give them values that have a partition starting at the watermark"
        )
    return start


def partitions_between(samples: Samples, since: datetime, until: datetime) -> Iterator[Partition]:
    """Partitions that start at or after `since` and before `until` and the table's end."""
    end = limit(samples)
    stop = ensure_utc(until) if end is None else min(ensure_utc(until), end)
    place = _place_at_or_after(samples, since)
    start = shift(samples, origin(samples), place)
    while start < stop:
        place += 1
        end = shift(samples, origin(samples), place)
        yield Partition(start, end)
        start = end


def count_between(samples: Samples, since: datetime, until: datetime) -> int:
    """How many `partitions_between` there are, without walking over them."""
    end = limit(samples)
    stop = ensure_utc(until) if end is None else min(ensure_utc(until), end)
    return max(0, _place_at_or_after(samples, stop) - _place_at_or_after(samples, since))


def _place_at_or_after(cut: Partitioning, moment: datetime) -> int:
    place = place_of(cut, moment)
    return max(0, place if shift(cut, origin(cut), place) == ensure_utc(moment) else place + 1)


def _aware(moment: datetime, name: str) -> datetime:
    try:
        return ensure_utc(moment)
    except ValueError as error:
        raise InputError(f"samples.{name}: {error}") from None
