"""The time pattern in a path: a partition's folder or file from its start, and its start from the name of that.

Both directions, so that looking for later partitions is one listing of their parent and not a question for each.

A path that ends with a slash names a folder. One without names a file where its last part ends with a suffix
(`events-{start:%Y%m%d}.parquet`), otherwise a folder, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from string import Formatter
from typing import NamedTuple

from trainflow.errors import InputError
from trainflow.protocols import slash_problem

#: directive of strftime → what it looks like. Those that depend on the host's locale or time zone are left out. With a
#: `-` it has no leading zeros: that is how Spark and Hive write numbers
_LOOKS = {
    "Y": r"\d{4}",
    "y": r"\d\d",
    "G": r"\d{4}",
    "m": r"\d\d",
    "-m": r"[1-9]\d?",
    "b": r"[A-Za-z]{3}",
    "B": r"[A-Za-z]+",
    "d": r"\d\d",
    "-d": r"[1-9]\d?",
    "j": r"\d{3}",
    "-j": r"[1-9]\d{0,2}",
    "V": r"\d\d",
    "-V": r"[1-9]\d?",
    "U": r"\d\d",
    "-U": r"0|[1-9]\d?",
    "W": r"\d\d",
    "-W": r"0|[1-9]\d?",
    "u": r"[1-7]",
    "w": r"[0-6]",
    "a": r"[A-Za-z]{3}",
    "A": r"[A-Za-z]+",
    "H": r"\d\d",
    "-H": r"0|[1-9]\d?",
    "I": r"\d\d",
    "-I": r"[1-9]\d?",
    "p": r"[AaPp][Mm]",
    "M": r"\d\d",
    "-M": r"0|[1-9]\d?",
    "S": r"\d\d",
    "-S": r"0|[1-9]\d?",
}
_SHORTHANDS = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M"}
#: orders of directives in which the order of the names is the order of time
_SORTED = (("Y", "m", "d", "H", "M", "S"), ("Y", "j", "H", "M", "S"), ("G", "V", "u", "H", "M", "S"))
#: directives that are parts of a moment by themselves, as it calls them, and their digits: no calendar is asked, which
#: is faster
_FIELDS = {
    "Y": ("year", 4),
    "m": ("month", 2),
    "d": ("day", 2),
    "H": ("hour", 2),
    "M": ("minute", 2),
    "S": ("second", 2),
}
_DIRECTIVE = re.compile(r"(%%|%-?.)")
#: directives that are no number: what stands between two numbers without leading zeros and keeps them apart
_WORDS = frozenset("bBaAp")
#: what a suffix of a file looks like: it has a letter, so that no part of a date is taken for one
_SUFFIX = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,10}")
_GLOB = re.compile(r"[*?\[\]]")
_GLOB_PIECE = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])")


class Segment(NamedTuple):
    """One part of the path between slashes: as a strftime format and as a regular expression."""

    format: str
    #: without the `-`
    directives: tuple[str, ...]
    expression: re.Pattern[str]

    def key(self, name: str) -> tuple[int | str, ...] | None:
        """The name's numbers, which sort as time does where the pattern is `sortable`; None for a name that is not of
        this pattern."""
        match = self.expression.fullmatch(name)
        return None if match is None else tuple(int(part) if part.isdigit() else part for part in match.groups())


class PathPattern(NamedTuple):
    """A path with a time pattern. Made by `path_pattern`."""

    text: str
    format: str
    #: the folder above the first part with a time in it: the root of the table
    root: str
    #: the parts from the first to the last that has a time in it
    segments: tuple[Segment, ...]
    #: the numbers in the names sort as time does
    sortable: bool
    #: and the names themselves do: they have leading zeros
    sorted_as_text: bool
    #: the last part of the path is a file and not a folder
    names_a_file: bool

    @property
    def names_a_year(self) -> bool:
        """Whether the names say which year they mean."""
        has = {name for segment in self.segments for name in segment.directives}
        return bool(has & {"Y", "y"}) or {"G", "V"} <= has

    def render(self, start: datetime) -> str:
        """The folder or the file of the partition that starts then, without a slash at its end."""
        return _written(self.format, start)

    def folder(self, start: datetime) -> str:
        """The folder that the partition's files are in: other partitions' too, where the pattern names a file."""
        return self.render(start).rpartition("/")[0] or self.root if self.names_a_file else self.render(start)

    def names(self, start: datetime) -> tuple[str, ...]:
        """The partition's part of the path, one name a segment."""
        return tuple(_written(segment.format, start) for segment in self.segments)

    def start_of(self, names: tuple[str, ...]) -> datetime | None:
        """The instant that these names (one a segment) are written for; None when they are not of this pattern."""
        found = self.earliest(names)
        return found if found is not None and self.names(found) == names else None

    def earliest(self, names: tuple[str, ...]) -> datetime | None:
        """The earliest instant these names (one a segment) can mean; None when they are not of this pattern."""
        values: dict[str, str] = {}
        for segment, name in zip(self.segments, names, strict=True):
            match = segment.expression.fullmatch(name)
            if match is None:
                return None
            values.update(zip(segment.directives, match.groups(), strict=True))
        if values.keys() <= _FIELDS.keys():
            return _moment(values)
        if not values.keys() & {"u", "w", "a", "A"} and values.keys() & {"V", "U", "W"}:
            values["u" if "V" in values else "w"] = "0" if "U" in values else "1"
        try:
            moment = datetime.strptime(" ".join(values.values()), " ".join(f"%{name}" for name in values))  # noqa: DTZ007
        except ValueError:
            return None
        return moment.replace(tzinfo=UTC)


@lru_cache(maxsize=256)
def path_pattern(path: str) -> PathPattern:
    """Read a path with `{start:…}` in it. Raises InputError for one that names no time, is a glob, or lacks a slash.

    Whether it can tell the partitions of a table apart is for `trainflow.samples.grid` to say.
    """
    if (problem := slash_problem(path)) is not None:
        raise InputError(f"samples.path: {problem}")
    tokens = list(_tokens(path))
    directives = [token.removeprefix("-") for is_time, token in tokens if is_time]
    if not directives:
        raise InputError(
            f"samples.path {path!r} has no time pattern, so every partition would be the same folder; "
            "write where the partition's start goes, e.g. 'table/date={start:%Y-%m-%d}/'"
        )
    _refuse_globs(path, tokens)
    parts = _parts(tokens)
    is_folder = parts[-1] == []
    while len(parts) > 1 and parts[-1] == []:
        parts.pop()
    timed = [number for number, part in enumerate(parts) if any(is_time for is_time, _ in part)]
    segments = tuple(_segment(path, part) for part in parts[timed[0] : timed[-1] + 1])
    seen = tuple(dict.fromkeys(directives))
    sortable = any(seen == order[: len(seen)] for order in _SORTED)
    return PathPattern(
        text=path,
        format="/".join(_format(part) for part in parts),
        root="/".join("".join(text for _, text in part) for part in parts[: timed[0]]) or ("/" if timed[0] else "."),
        segments=segments,
        sortable=sortable,
        sorted_as_text=sortable and not any(is_time and token.startswith("-") for is_time, token in tokens),
        names_a_file=not is_folder and _ends_with_suffix(parts[-1]),
    )


def render_marker(marker: str, start: datetime) -> str:
    """The name of a partition's marker: it may hold the partition's start, as the path does. Raises InputError."""
    return _written(_format(list(_tokens(marker, "samples.ready.marker"))), start) if "{" in marker else marker


def expression_of(form: str) -> re.Pattern[str]:
    """What names written with this format look like."""
    tokens = list(_format_tokens(f"a format {form!r}", form))
    return re.compile("".join(f"({_LOOKS[text]})" if is_time else re.escape(text) for is_time, text in tokens))


def _moment(values: dict[str, str]) -> datetime | None:
    found = {name: int(value) for name, value in values.items()}
    try:
        return datetime(
            found.get("Y", 1900),
            found.get("m", 1),
            found.get("d", 1),
            found.get("H", 0),
            found.get("M", 0),
            found.get("S", 0),
            tzinfo=UTC,
        )
    except ValueError:
        return None


def _refuse_globs(path: str, tokens: list[tuple[bool, str]]) -> None:
    for is_time, text in tokens:
        found = None if is_time else _GLOB.search(text)
        if found is not None:
            raise InputError(
                f"samples.path {path!r} has {found[0]!r} in it: the path is one partition's folder (or its one file) "
                "and not a glob. Which files of the folder count is for samples.files to say, e.g. 'part-*.parquet' or "
                "'**/*.parquet'"
            )


def _ends_with_suffix(part: list[tuple[bool, str]]) -> bool:
    is_time, text = part[-1]
    return not is_time and _SUFFIX.fullmatch(text[text.rfind(".") :] if "." in text else "") is not None


def _written(form: str, moment: datetime) -> str:
    """strftime, with `%-m` on every operating system."""
    template = _template(form)
    if template is not None:
        return template.format(moment)
    pieces = _DIRECTIVE.split(form)
    return "".join(
        str(int(moment.strftime(f"%{piece[2]}"))) if piece.startswith("%-") else moment.strftime(piece)
        for piece in pieces
    )


@lru_cache(maxsize=256)
def _template(form: str) -> str | None:
    """The format of a moment as `str.format` has it, which asks no calendar; None where that is needed."""
    pieces = []
    for piece in _DIRECTIVE.split(form):
        if piece.startswith("%") and piece != "%%":
            name = piece[1:].removeprefix("-")
            if name not in _FIELDS:
                return None
            field, digits = _FIELDS[name]
            pieces.append(f"{{0.{field}}}" if piece[1] == "-" else f"{{0.{field}:0{digits}d}}")
        else:
            pieces.append(piece.replace("%%", "%").replace("{", "{{").replace("}", "}}"))
    return "".join(pieces)


@lru_cache(maxsize=256)
def glob_expression(glob: str) -> re.Pattern[str]:
    """A glob over a path inside a folder: `*` and `?` stay between slashes, `**/` is any number of folders."""
    expression = ""
    for piece in _GLOB_PIECE.split(glob):
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


def _tokens(path: str, what: str = "samples.path") -> Iterator[tuple[bool, str]]:
    """(is a directive, text) one after the other."""
    try:
        fields = list(Formatter().parse(path))
    except ValueError as error:
        raise InputError(f"{what} {path!r}: {error}") from None
    for literal, name, specification, conversion in fields:
        if literal:
            yield False, literal
        if name is None:
            continue
        if name != "start" or conversion or not specification:
            raise InputError(
                f"{what} {path!r}: only the partition's start goes into the path, with a format: "
                f"{{start:%Y-%m-%d}}; found {{{name}{':' + specification if specification else ''}}}"
            )
        yield from _format_tokens(f"{what} {path!r}", specification)


def _format_tokens(what: str, specification: str) -> Iterator[tuple[bool, str]]:
    for directive in _SHORTHANDS:
        specification = specification.replace(f"%{directive}", _SHORTHANDS[directive])
    for piece in re.split(r"(%-?.?)", specification):
        if piece == "%%":
            yield False, "%"
        elif piece.startswith("%"):
            if piece[1:] not in _LOOKS:
                known = " ".join(f"%{name}" for name in (*_LOOKS, *_SHORTHANDS))
                raise InputError(f"{what}: {piece!r} cannot be used here; use {known}")
            yield True, piece[1:]
        elif piece:
            yield False, piece


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


def _segment(path: str, part: list[tuple[bool, str]]) -> Segment:
    open_number = False
    for is_time, text in part:
        if is_time and text.startswith("-"):
            if open_number:
                raise InputError(
                    f"samples.path {path!r} is ambiguous: nothing stands between two numbers without leading zeros, so "
                    f"'111' could be 1 and 11; put something before {{start:%{text}}}, or write it with zeros: "
                    f"{{start:%{text[1:]}}}"
                )
            open_number = True
        elif text in _WORDS if is_time else re.search(r"\D", text):
            open_number = False
    return Segment(
        format=_format(part),
        directives=tuple(text.removeprefix("-") for is_time, text in part if is_time),
        expression=expression_of(_format(part)),
    )
