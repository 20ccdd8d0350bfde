"""A table that is only imagined."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trainflow.samples.splits.next_split import NextSplit, SplitFound

START = datetime(2024, 1, 1, tzinfo=UTC)


DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def shape(found: NextSplit) -> str:
    """The split as letters from the watermark: `P` partition, `-` hole."""
    assert isinstance(found, SplitFound), found
    split = found.split
    marks = dict.fromkeys((partition.start for partition in split.partitions), "P")
    for hole in split.holes:
        marks.update({hole.start + n * DAY: "-" for n in range((hole.end - hole.start) // DAY)})
    assert split.start == min(marks)
    assert split.end == max(marks) + DAY
    return "".join(marks[moment] for moment in sorted(marks))
