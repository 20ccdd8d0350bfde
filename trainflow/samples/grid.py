"""The grid of a table: where it is and how it is cut in time; and whether its path can tell its partitions apart.

Pure rules. Every partition of a table has a name of its own that means its start exactly, so that what is there can be
read from a listing; what cannot be named so is refused before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from trainflow.errors import InputError
from trainflow.samples.partitions import Partitioning, at_or_after, is_boundary, label, length_label, origin
from trainflow.samples.pattern import PathPattern, path_pattern
from trainflow.samples.spec import DEFAULT_FILES, Ready, Samples

_MINUTE, _HOUR, _DAY, _WEEK = 60, 3600, 86_400, 7 * 86_400
#: calendar lengths fit from the first of a month to the last day that every month has
_LAST_COMMON_DAY = 28
_SHORTEST_MONTH, _SHORTEST_YEAR = 28 * _DAY, 365 * _DAY


class Grid(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chain was trained on, as far as it decides which partitions there are: the table's path, and how it is cut
    in time. `zone` is the time zone that partitions and their names are in."""

    path: str
    start: datetime
    length_seconds: int = 0
    length_months: int = 0
    zone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.path}, {length_label(self)} from {label(self.start)}"


def grid_of(samples: Samples) -> Grid:
    """The grid of a table. Raises InputError for a start without a time zone."""
    return Grid(samples.path, origin(samples), samples.length_seconds, samples.length_months)


def check_table(samples: Samples) -> PathPattern:
    """The table's pattern. Raises InputError for a path, start, length, marker or glob that do not fit together."""
    pattern = path_pattern(samples.path)
    origin(samples)
    problems = (
        length_problem(pattern, samples),
        start_problem(pattern, samples),
        file_problem(pattern, samples.files, samples.ready),
    )
    for problem in problems:
        if problem is not None:
            raise InputError(problem)
    return pattern


class _Resolution(NamedTuple):
    """What the names of a path tell apart: a length of time (`months` of them where they are calendar months), and what
    would have to be added to tell more."""

    name: str
    seconds: int
    months: int
    finer: tuple[str, str]


def length_problem(pattern: PathPattern, cut: Partitioning) -> str | None:
    """Why partitions of this length cannot have names of this pattern; None: they can."""
    has = {name for segment in pattern.segments for name in segment.directives}
    found, written = _resolution(has), length_label(cut)
    if found is None:
        return _ambiguous(pattern, written, ("year", "%Y"))
    shortest = cut.length_seconds or cut.length_months // 12 * _SHORTEST_YEAR or cut.length_months * _SHORTEST_MONTH
    if shortest < _shortest(found) and (not cut.length_months or found.months):
        return _ambiguous(pattern, written, found.finer)
    if found.months and cut.length_months % found.months == 0 and cut.length_months:
        return None
    if not found.months and cut.length_seconds and cut.length_seconds % found.seconds == 0:
        return None
    if cut.length_months and not found.months and _DAY % found.seconds == 0:
        return None
    fits = {12: "calendar years: 1y", 1: "calendar months: 1mo, 3mo, 1y"}.get(found.months, f"whole {found.name}s")
    return (
        f"samples.path {pattern.text!r} tells {found.name}s apart, and partitions of {written} do not begin where "
        f"{found.name}s do, so some would have no folder and some folders no partition; "
        f"write a length of {fits}, or add {{start:{found.finer[1]}}} to the path"
    )


def start_problem(pattern: PathPattern, cut: Partitioning) -> str | None:
    """Why the first partition cannot begin at this start; None: it can."""
    start = origin(cut)
    if cut.length_months and start.day > _LAST_COMMON_DAY:
        return (
            f"samples.start {label(start)} is day {start.day} of a month, which not every month has; partitions of "
            f"{length_label(cut)} begin at one of the days 1 to {_LAST_COMMON_DAY}"
        )
    meant = pattern.earliest(pattern.names(start))
    if meant == start:
        return None
    if meant is None:
        return f"samples.start {label(start)} has no name in samples.path {pattern.text!r}: {pattern.render(start)}"
    return (
        f"samples.start {label(start)} is inside of what samples.path {pattern.text!r} names: "
        f"{pattern.render(start)} means {label(meant)}; begin then, or add what tells the two apart to the path"
    )


def file_problem(pattern: PathPattern, files: str, ready: Ready) -> str | None:
    """Why glob and marker do not go with what the path names; None: they do."""
    for what, glob in (("samples.files", files), ("samples.ready.marker", ready.marker)):
        problem = outside_problem(what, glob)
        if problem is not None:
            return problem
    if not pattern.names_a_file:
        return None
    if files != DEFAULT_FILES:
        return (
            f"samples.path {pattern.text!r} names one file, so samples.files {files!r} has nothing to choose: leave it "
            "out, or end the path with a slash where it is a folder"
        )
    if ready.marker is not None and "{start:" not in ready.marker and "{" in pattern.text.rsplit("/", 1)[-1]:
        return (
            f"samples.ready.marker {ready.marker!r} would be there for all partitions at once: they are files of one "
            f"folder; name one for each, e.g. '{pattern.text.rsplit('/', 1)[-1]}.done'"
        )
    return None


def outside_problem(what: str, glob: str | None) -> str | None:
    """Why a glob can match nothing in a partition's folder; None: it can. Only what is in the folder, or below it, is
    ever looked at."""
    if glob is None:
        return None
    parts = glob.split("/")
    if "://" in glob or not parts[0] or not parts[-1] or {".", ".."} & set(parts):
        return (
            f"{what} {glob!r} names nothing in the partition's folder, and only that is looked at: give a name or a "
            "glob relative to it, without '..' (a marker above the folder says nothing about one partition; where "
            "there is none in it, ready: {stable: 10m} or {min_files: 1} says when it is written)"
        )
    return None


def nests(outer: Partitioning, inner: Partitioning) -> bool:
    """Whether a partition of `inner` begins wherever one of `outer` does, from the later of their starts on."""
    first = at_or_after(outer, origin(inner))
    if not is_boundary(inner, first):
        return False
    if inner.length_months:
        return bool(outer.length_months) and outer.length_months % inner.length_months == 0
    # the months differ by whole days
    steps = _DAY if outer.length_months else outer.length_seconds
    return steps % inner.length_seconds == 0


def _resolution(has: set[str]) -> _Resolution | None:
    """What names with these directives tell apart; None: not even years."""
    iso, year = {"G", "V"} <= has, bool(has & {"Y", "y"})
    if not (iso or year):
        return None
    week = iso or bool(has & {"U", "W"})
    month = year and bool(has & {"m", "b", "B"})
    day = (month and "d" in has) or (year and "j" in has) or (week and bool(has & {"u", "w", "a", "A"}))
    if not day:
        if week:
            return _Resolution("week", _WEEK, 0, ("day", "%u"))
        if month:
            return _Resolution("month", 0, 1, ("day", "%d"))
        finer = ("ISO year that belongs to the week", "%G") if "V" in has else ("month", "%m")
        return _Resolution("year", 0, 12, finer)
    return next(_of_a_day(has))


def _of_a_day(has: set[str]) -> Iterator[_Resolution]:
    if not ("H" in has or {"I", "p"} <= has):
        yield _Resolution("day", _DAY, 0, ("hour", "%H"))
    if "M" not in has:
        yield _Resolution("hour", _HOUR, 0, ("minute", "%M"))
    if "S" not in has:
        yield _Resolution("minute", _MINUTE, 0, ("second", "%S"))
    yield _Resolution("second", 1, 0, ("second", "%S"))


def _shortest(found: _Resolution) -> int:
    return {0: found.seconds, 1: _SHORTEST_MONTH, 12: _SHORTEST_YEAR}[found.months]


def _ambiguous(pattern: PathPattern, written: str, finer: tuple[str, str]) -> str:
    return (
        f"samples.path {pattern.text!r} is ambiguous: partitions are {written} long and the path has no {finer[0]}, so "
        f"several of them would share one folder; add {{start:{finer[1]}}}"
    )
