"""Wrong input, told so that it can be mended: each problem with its place, all of them in one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trainflow.errors import PipelineFileError

#: keys (and indexes) from the root of a document to one of its values
Location = tuple[str | int, ...]


@dataclass(frozen=True)
class SourcePlace:
    """Where a value was written. `line` and `column` are 1-based; None for what was not written in a file."""

    source: str
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True)
class SpecProblem:
    """One thing that is wrong with what a person wrote."""

    place: SourcePlace
    message: str


def error_of(problems: Iterable[SpecProblem]) -> PipelineFileError:
    """One error that tells all problems, a line each, in the order of the file."""
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: _order(problem.place))
    first, *others = ordered
    lines = [first.message, *(str(_single(problem)) for problem in others)]
    return PipelineFileError(
        "\n".join(lines), path=first.place.source, line=first.place.line, column=first.place.column
    )


def _single(problem: SpecProblem) -> PipelineFileError:
    place = problem.place
    return PipelineFileError(problem.message, path=place.source, line=place.line, column=place.column)


def _order(place: SourcePlace) -> tuple[bool, str, int, int]:
    return (place.line is None, place.source, place.line or 0, place.column or 0)


def suggest(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, otherwise nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def dotted(location: Location) -> str:
    """A location as a person names it: `samples.checks.columns`, `gates[0]`."""
    written = ""
    for part in location:
        written += f"[{part}]" if isinstance(part, int) else f".{part}" if written else part
    return written


def shown(value: Any) -> str:
    """What was written, short, with the word for its type."""
    if value is None:
        return "nothing"
    kind = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a section"}
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}…"
    return f"{text} ({kind.get(type(value), type(value).__name__)})"
