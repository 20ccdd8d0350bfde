"""Names that are almost of a pattern, and what would have to be written for them. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from trainflow.samples.pattern import Segment, expression_of

#: names less alike than this are other names
_ALIKE = 0.6


def suggest_segment(segment: Segment, names: Sequence[str]) -> str | None:
    """What to write in a path so that names of this folder are of `segment`; None: nothing that comes to mind.

    Looked for in this order: numbers without zeros (or with), another case, another constant before or after the date,
    the same numbers with other signs between them.
    """
    for form in (_without_zeros(segment.format), _with_zeros(segment.format)):
        if form != segment.format and _some(expression_of(form), names):
            return f"write {_as_path(form)}"
    folded = re.compile(segment.expression.pattern, re.IGNORECASE)
    if found := _some(folded, names):
        return f"{found!r} differs in upper and lower case only: write the path as it is"
    return _other_constants(segment, names)


def _other_constants(segment: Segment, names: Sequence[str]) -> str | None:
    """The same date behind or before another word."""
    date = re.search(r"%.*%-?\w|%-?\w", segment.format)
    if date is None:
        return None
    before, after = segment.format[: date.start()], segment.format[date.end() :]
    inner = re.compile(rf"(.*?){expression_of(date[0]).pattern}(.*)")
    for name in names:
        match = inner.fullmatch(name)
        if match is None:
            continue
        found = (match[1], match[match.re.groups])
        wanted = (before.replace("%%", "%"), after.replace("%%", "%"))
        if found != wanted and _alike("".join(found), "".join(wanted)):
            return f"write {_as_path(found[0].replace('%', '%%') + date[0] + found[1].replace('%', '%%'))}"
    return None


def _alike(found: str, wanted: str) -> bool:
    return not (found and wanted) or difflib.SequenceMatcher(None, found, wanted).ratio() >= _ALIKE


def _some(expression: re.Pattern[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if expression.fullmatch(name)), None)


def _without_zeros(form: str) -> str:
    return re.sub(r"%([mdHMSjVUWI])", r"%-\1", form)


def _with_zeros(form: str) -> str:
    return form.replace("%-", "%")


def _as_path(form: str) -> str:
    """A strftime format as it is written in a path: one field for each stretch of directives."""
    pieces = re.split(r"((?:%-?[A-Za-z])(?:[-_.:]?%-?[A-Za-z])*)", form)
    written = [f"{{start:{piece}}}" if number % 2 else piece.replace("%%", "%") for number, piece in enumerate(pieces)]
    return "'" + "".join(written) + "'"
