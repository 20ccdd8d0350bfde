"""Stretches of time laid side by side: what an audit sees. Pure, and on purpose not the fold's arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated

import msgspec

from trainflow.samples.partitions import label

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Interval(msgspec.Struct, frozen=True, gc=False):
    """[start, end), aware UTC."""

    start: _Time
    end: _Time
    reason: str = ""

    def __str__(self) -> str:
        return f"[{label(self.start)}, {label(self.end)})"


def by_time(interval: Interval) -> tuple[datetime, datetime]:
    """The order intervals are laid out in."""
    return interval.start, interval.end


def gaps_between(tiles: Sequence[Interval], begin: datetime | None = None) -> list[Interval]:
    """What no tile covers, from `begin` (or the first tile) to the last tile's end."""
    tiles = sorted(tiles, key=by_time)
    if not tiles:
        return []
    edge = min(begin, tiles[0].start) if begin else tiles[0].start
    gaps = []
    for tile in tiles:
        if tile.start > edge:
            gaps.append(Interval(edge, tile.start))
        edge = max(edge, tile.end)
    return gaps


def overlapping(tiles: Sequence[Interval]) -> list[Interval]:
    """Every tile that covers time an earlier one has covered already."""
    found = []
    tiles = sorted(tiles, key=by_time)
    edge = tiles[0].end if tiles else None
    for earlier, later in pairwise(tiles):
        edge = max(edge or earlier.end, earlier.end)
        if later.start < edge:
            found.append(Interval(later.start, later.end))
    return found


def uncovered(interval: Interval, tiles: Sequence[Interval]) -> list[Interval]:
    """What of an interval no tile covers."""
    left, edge = [], interval.start
    for tile in sorted(tiles, key=by_time):
        if tile.end <= edge or tile.start >= interval.end:
            continue
        if tile.start > edge:
            left.append(Interval(edge, tile.start, interval.reason))
        edge = tile.end
    return [*left, Interval(edge, interval.end, interval.reason)] if edge < interval.end else left
