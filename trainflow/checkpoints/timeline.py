"""Stretches of time laid side by side: what an audit sees. Pure, and on purpose not the fold's arithmetic."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

import msgspec


class Interval(msgspec.Struct, frozen=True):
    """[start, end), aware UTC."""

    start: datetime
    end: datetime
    reason: str = ""

    def __str__(self) -> str:
        return f"[{self.start.isoformat()}, {self.end.isoformat()})"


def interval_of(raw: dict[str, Any]) -> Interval:
    """The interval in a piece of JSON. Raises ValueError, KeyError or TypeError when there is none."""
    return Interval(time_of(raw["start"]), time_of(raw["end"]), raw.get("reason", ""))


def time_of(text: str) -> datetime:
    """The aware time in a string. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment


def by_time(interval: Interval) -> tuple[datetime, datetime]:
    """The order intervals are laid out in."""
    return interval.start, interval.end


def gaps_between(tiles: list[Interval], begin: datetime | None = None) -> list[Interval]:
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


def overlapping(tiles: list[Interval]) -> list[Interval]:
    """Every tile that covers time an earlier one has covered already."""
    found = []
    tiles = sorted(tiles, key=by_time)
    edge = tiles[0].end if tiles else None
    for earlier, later in pairwise(tiles):
        edge = max(edge or earlier.end, earlier.end)
        if later.start < edge:
            found.append(later)
    return found


def uncovered(interval: Interval, tiles: list[Interval]) -> list[Interval]:
    """What of an interval no tile covers."""
    left, edge = [], interval.start
    for tile in sorted(tiles, key=by_time):
        if tile.end <= edge or tile.start >= interval.end:
            continue
        if tile.start > edge:
            left.append(Interval(edge, tile.start, interval.reason))
        edge = tile.end
    return [*left, Interval(edge, interval.end, interval.reason)] if edge < interval.end else left
