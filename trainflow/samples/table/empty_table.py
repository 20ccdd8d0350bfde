"""What is to be seen where samples should be: said when nothing of a table is found at all.

A typo in a path, another way to write a date and a table that starts earlier all look the same to a listing by pattern:
nothing is there. So the folders are looked at as they are, one listing a level, and where names are almost of the
pattern, what would have to be written for them is said.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from trainflow.errors import SampleUnreadable
from trainflow.humanize import counted
from trainflow.observability.redaction import redact_text
from trainflow.samples.partitions import is_boundary, label, limit, origin
from trainflow.samples.pattern import PathPattern, Segment, expression_of
from trainflow.samples.spec import Samples
from trainflow.samples.table.readiness import PartitionState
from trainflow.storage.store import Storage

#: so many names of a folder are told
_SHOWN = 5
#: names less alike than this are other names
_ALIKE = 0.6


def describe_folders(samples: Samples, storage: Storage, pattern: PathPattern) -> str:
    """A clause for people: what is in the folders of the table, and what would make it one. Raises SampleUnreadable."""
    folder, names = pattern.root, storage.names(pattern.root)
    if names is None:
        return f"the folder {redact_text(folder)} does not exist{_beside(storage, folder)}"
    taken: tuple[str, ...] = ()
    for depth, segment in enumerate(pattern.segments):
        matching = [name for name in names if segment.expression.fullmatch(name)]
        if not matching:
            example = pattern.names(origin(samples))[depth]
            fix = suggest_segment(segment, sorted(names))
            hint = f": {fix}" if fix is not None else ""
            return f"{_holds(folder, names)}, and nothing there is called as in {example!r}{hint}"
        taken = (*taken, max(matching, key=lambda name: segment.key(name) or ()))
        folder = "/".join((pattern.root.rstrip("/"), *taken))
        if depth + 1 < len(pattern.segments):
            names = storage.names(folder) or []
    return _of_newest(samples, storage, pattern, taken, folder)


def unmarked(samples: Samples, states: Sequence[PartitionState], storage: Storage, pattern: PathPattern) -> str | None:
    """A clause for people where none of these partitions has its marker although all have files; None: it is not so.
    Raises SampleUnreadable."""
    missing = [each.missing_marker for each in states if each.files]
    if not missing or len(missing) < len(states) or None in missing:
        return None
    folder, above = pattern.folder(states[0].start), ""
    if missing[0] in (storage.names(pattern.root) or []):
        above = (
            f"; {redact_text(pattern.root)} has one, which a job writes (Spark does) for all partitions at once, and "
            "which says of none that it is complete"
        )
    return (
        f"no marker was found in {len(states)} of {counted(len(states), 'partition')}: none has {missing[0]}, and "
        f"{_holds(folder, storage.names(folder) or [])}{above}. Write the marker's name into samples.ready.marker; "
        "where none is written, samples.ready: {stable: 10m}"
    )


def _of_newest(samples: Samples, storage: Storage, pattern: PathPattern, names: tuple[str, ...], folder: str) -> str:
    """Why the newest thing that is called as a partition is none of this table's."""
    start, end, first = pattern.start_of(names), limit(samples), origin(samples)
    shown = redact_text(folder)
    if start is None:
        return f"{shown} is there, and its name is no time that the path could be written for"
    if start < first:
        return f"the newest that is there, {shown}, is from before samples.start {label(first)}: set 'start' earlier"
    if end is not None and start >= end:
        return f"the newest that is there, {shown}, is not before samples.end {label(end)}: set 'end' later"
    if not is_boundary(samples, start):
        return (
            f"{shown} is there, and no partition starts at {label(start)}: they are counted from samples.start "
            f"{label(first)}; give 'start' and 'length' values that have one starting then"
        )
    if not pattern.names_a_file and storage.names(folder) is None:
        return f"{shown} is a file and not a folder: name the file in samples.path, with its suffix and without a slash"
    return f"{shown} is there, and there is no file in {redact_text(pattern.render(start))}"


def _beside(storage: Storage, folder: str) -> str:
    """What is in the next folder above that is there."""
    head, separator, tail = folder.rpartition("://")
    parts = tail.rstrip("/").split("/")
    for count in range(len(parts) - 1, 0, -1):
        above = f"{head}{separator}" + "/".join(parts[:count])
        try:
            names = storage.names(above or "/")
        except SampleUnreadable:  # who may read the table need not be allowed to look above it
            return ""
        if names:
            return f"; {_holds(above or '/', names)}"
    return ""


def _holds(folder: str, names: list[str]) -> str:
    if not names:
        return f"{redact_text(folder)} is empty"
    some = ", ".join(sorted(names)[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"{redact_text(folder)} holds {some}"


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
