"""The time pattern in a path: a partition's folder from its start, and its start from the name of a folder.

Both directions, so that looking for later partitions is one listing of their parent and not a question for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from string import Formatter

from trainflow.errors import InputError

#: directive of strftime → what it looks like. Those that depend on the host's locale or time zone are left out.
_LOOKS = {
    "Y": r"\d{4}",
    "y": r"\d\d",
    "G": r"\d{4}",
    "m": r"\d\d",
    "b": r"[A-Za-z]{3}",
    "B": r"[A-Za-z]+",
    "d": r"\d\d",
    "j": r"\d{3}",
    "V": r"\d\d",
    "U": r"\d\d",
    "W": r"\d\d",
    "u": r"[1-7]",
    "w": r"[0-6]",
    "a": r"[A-Za-z]{3}",
    "A": r"[A-Za-z]+",
    "H": r"\d\d",
    "I": r"\d\d",
    "p": r"[AaPp][Mm]",
    "M": r"\d\d",
    "S": r"\d\d",
}
_SHORTHANDS = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M"}
#: orders of directives in which the order of the names is the order of time
_SORTED = (("Y", "m", "d", "H", "M", "S"), ("Y", "j", "H", "M", "S"), ("G", "V", "u", "H", "M", "S"))
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Segment:
    """One part of the path between slashes: as a strftime format and as a regular expression."""

    format: str
    directives: tuple[str, ...]
    expression: re.Pattern[str]


@dataclass(frozen=True)
class PathPattern:
    """A path with a time pattern. Made by `path_pattern`."""

    text: str
    format: str
    #: the folder above the first part with a time in it: the root of the table
    root: str
    #: the parts from the first to the last that has a time in it
    segments: tuple[Segment, ...]
    #: names sort as time does
    sortable: bool

    def render(self, start: datetime) -> str:
        """The folder of the partition that starts then, without a slash at its end."""
        return start.strftime(self.format)

    def names(self, start: datetime) -> tuple[str, ...]:
        """The partition's part of the path, one name a segment."""
        return tuple(start.strftime(segment.format) for segment in self.segments)

    def earliest(self, names: tuple[str, ...]) -> datetime | None:
        """The earliest instant these names (one a segment) can mean; None when they are not of this pattern."""
        values: dict[str, str] = {}
        for segment, name in zip(self.segments, names, strict=True):
            match = segment.expression.fullmatch(name)
            if match is None:
                return None
            values.update(zip(segment.directives, match.groups(), strict=True))
        if not values.keys() & {"u", "w", "a", "A"} and values.keys() & {"V", "U", "W"}:
            values["u" if "V" in values else "w"] = "0" if "U" in values else "1"
        try:
            moment = datetime.strptime(" ".join(values.values()), " ".join(f"%{name}" for name in values))  # noqa: DTZ007
        except ValueError:
            return None
        return moment.replace(tzinfo=UTC)


@lru_cache(maxsize=256)
def path_pattern(path: str, length_seconds: int) -> PathPattern:
    """Read a path with `{start:…}` in it. Raises InputError for a pattern that two partitions of this length share."""
    tokens = list(_tokens(path))
    directives = [token for is_time, token in tokens if is_time]
    if not directives:
        raise InputError(
            f"samples.path {path!r} has no time pattern, so every partition would be the same folder; "
            "write where the partition's start goes, e.g. 'table/date={start:%Y-%m-%d}/'"
        )
    _check_unambiguous(path, set(directives), length_seconds)
    parts = _parts(tokens)
    while len(parts) > 1 and parts[-1] == []:
        parts.pop()
    timed = [number for number, part in enumerate(parts) if any(is_time for is_time, _ in part)]
    segments = tuple(_segment(part) for part in parts[timed[0] : timed[-1] + 1])
    seen = tuple(dict.fromkeys(directives))
    return PathPattern(
        text=path,
        format="/".join(_format(part) for part in parts),
        root="/".join("".join(text for _, text in part) for part in parts[: timed[0]]) or ("/" if timed[0] else "."),
        segments=segments,
        sortable=any(seen == order[: len(seen)] for order in _SORTED),
    )


@lru_cache(maxsize=256)
def glob_expression(glob: str) -> re.Pattern[str]:
    """A glob over a path inside a folder: `*` and `?` stay between slashes, `**/` is any number of folders."""
    expression = ""
    for piece in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", glob):
        match piece:
            case "**/":
                expression += "(?:[^/]+/)*"
            case "**":
                expression += ".*"
            case "*":
                expression += "[^/]*"
            case "?":
                expression += "[^/]"
            case _ if piece.startswith("[") and piece.endswith("]"):
                expression += "[^" + piece[2:] if piece.startswith("[!") else piece
            case _:
                expression += re.escape(piece)
    return re.compile(expression)


def _tokens(path: str) -> Iterator[tuple[bool, str]]:
    """(is a directive, text) one after the other."""
    try:
        fields = list(Formatter().parse(path))
    except ValueError as error:
        raise InputError(f"samples.path {path!r}: {error}") from None
    for literal, name, specification, conversion in fields:
        if literal:
            yield False, literal
        if name is None:
            continue
        if name != "start" or conversion or not specification:
            raise InputError(
                f"samples.path {path!r}: only the partition's start goes into the path, with a format: "
                f"{{start:%Y-%m-%d}}; found {{{name}{':' + specification if specification else ''}}}"
            )
        yield from _format_tokens(path, specification)


def _format_tokens(path: str, specification: str) -> Iterator[tuple[bool, str]]:
    for directive in _SHORTHANDS:
        specification = specification.replace(f"%{directive}", _SHORTHANDS[directive])
    for piece in re.split(r"(%.?)", specification):
        if piece == "%%":
            yield False, "%"
        elif piece.startswith("%"):
            if piece[1:] not in _LOOKS:
                known = " ".join(f"%{name}" for name in (*_LOOKS, *_SHORTHANDS))
                raise InputError(f"samples.path {path!r}: {piece!r} cannot be used here; use {known}")
            yield True, piece[1:]
        elif piece:
            yield False, piece


def _check_unambiguous(path: str, has: set[str], length_seconds: int) -> None:
    month = bool(has & {"m", "b", "B"})
    week = bool({"G", "V"} <= has or (has & {"Y", "y"} and has & {"U", "W"}))
    weekday = bool(has & {"u", "w", "a", "A"})
    hour = "H" in has or {"I", "p"} <= has
    missing = None
    if not (has & {"Y", "y"} or {"G", "V"} <= has):
        missing = ("year", "%Y")
    elif length_seconds < 366 * _DAY and not (week or month or "j" in has):
        missing = ("month" if "V" not in has else "ISO year that belongs to the week", "%m" if "V" not in has else "%G")
    elif length_seconds < (7 if week else 31) * _DAY and not (
        (month and "d" in has) or "j" in has or (week and weekday)
    ):
        missing = ("day", "%d")
    elif length_seconds < _DAY and not hour:
        missing = ("hour", "%H")
    elif length_seconds < _HOUR and "M" not in has:
        missing = ("minute", "%M")
    elif length_seconds < _MINUTE and "S" not in has:
        missing = ("second", "%S")
    if missing is not None:
        raise InputError(
            f"samples.path {path!r} is ambiguous: partitions are {length_seconds} s long and the path has no "
            f"{missing[0]}, so several of them would share one folder; add {{start:{missing[1]}}}"
        )


def _parts(tokens: list[tuple[bool, str]]) -> list[list[tuple[bool, str]]]:
    """The tokens of each part between slashes."""
    parts: list[list[tuple[bool, str]]] = [[]]
    for is_time, text in tokens:
        if is_time:
            parts[-1].append((True, text))
            continue
        for number, piece in enumerate(text.split("/")):
            if number:
                parts.append([])
            if piece:
                parts[-1].append((False, piece))
    return parts


def _format(part: list[tuple[bool, str]]) -> str:
    return "".join(f"%{text}" if is_time else text.replace("%", "%%") for is_time, text in part)


def _segment(part: list[tuple[bool, str]]) -> Segment:
    return Segment(
        format=_format(part),
        directives=tuple(text for is_time, text in part if is_time),
        expression=re.compile("".join(f"({_LOOKS[text]})" if is_time else re.escape(text) for is_time, text in part)),
    )
