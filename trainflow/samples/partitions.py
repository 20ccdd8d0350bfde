"""Where the partitions of a table begin and end: arithmetic over starts, nothing else.

Partitions of one table have one length and are laid end to end from `samples.start`, in UTC, so that daylight saving
never makes one of them shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from trainflow.clock import ensure_utc
from trainflow.errors import InputError
from trainflow.samples.spec import Samples


class Partition(msgspec.Struct, frozen=True, order=True):
    """One time slice of a table, named by its start."""

    start: datetime
    length_seconds: int

    @property
    def end(self) -> datetime:
        """Exclusive; the watermark after training on it."""
        return self.start + timedelta(seconds=self.length_seconds)


def label(moment: datetime) -> str:
    """An instant for people: `2013-01-31T05:00Z`."""
    utc = moment if moment.tzinfo is None else ensure_utc(moment)
    return utc.isoformat(timespec="minutes" if not utc.second else "seconds").removesuffix("+00:00") + "Z"


def length_of(samples: Samples) -> timedelta:
    """The length of every partition of the table."""
    return timedelta(seconds=samples.length_seconds)


def origin(samples: Samples) -> datetime:
    """Start of the first partition. Raises InputError when it has no time zone."""
    return _aware(samples.start, "start")


def limit(samples: Samples) -> datetime | None:
    """The exclusive end of the table, or None when it goes on. Raises InputError when it has no time zone."""
    return None if samples.end is None else _aware(samples.end, "end")


def at_or_after(samples: Samples, moment: datetime) -> datetime:
    """The first partition start that is not before `moment`."""
    first, length = origin(samples), length_of(samples)
    distance = ensure_utc(moment) - first
    return first if distance <= timedelta(0) else first + -(-distance // length) * length


def containing(samples: Samples, moment: datetime) -> datetime | None:
    """Start of the partition that contains `moment`; None before the table's start."""
    first, length = origin(samples), length_of(samples)
    distance = ensure_utc(moment) - first
    return None if distance < timedelta(0) else first + distance // length * length


def after_watermark(samples: Samples, watermark: datetime | None) -> datetime:
    """Start of the partition that comes next. Raises InputError for a watermark inside a partition: a part of that
    partition was trained on, so neither taking nor leaving it would be right."""
    if watermark is None:
        return origin(samples)
    start = at_or_after(samples, watermark)
    if start > ensure_utc(watermark) and start > origin(samples):
        raise InputError(
            f"the watermark {label(watermark)} is inside the partition {label(start - length_of(samples))}: partitions "
            f"start every {samples.length_seconds} s from {label(origin(samples))}. Was `start` or `length` of the "
            "samples changed? Give them values that have a partition starting at the watermark"
        )
    return start


def partitions_between(samples: Samples, since: datetime, until: datetime) -> Iterator[Partition]:
    """Partitions that start at or after `since` and before `until` and the table's end."""
    end = limit(samples)
    stop = ensure_utc(until) if end is None else min(ensure_utc(until), end)
    start, length = at_or_after(samples, since), length_of(samples)
    while start < stop:
        yield Partition(start, samples.length_seconds)
        start += length


def count_between(samples: Samples, since: datetime, until: datetime) -> int:
    """How many `partitions_between` there are, without walking over them."""
    end = limit(samples)
    stop = ensure_utc(until) if end is None else min(ensure_utc(until), end)
    return max(0, -(-(stop - at_or_after(samples, since)) // length_of(samples)))


def _aware(moment: datetime, name: str) -> datetime:
    try:
        return ensure_utc(moment)
    except ValueError as error:
        raise InputError(f"samples.{name}: {error}") from None
