"""Read YAML into plain JSON values that remember where each was written.

Safe by construction: only the types of JSON are built; dates stay the text they are written as, any other tag is
refused. Anchors and merge keys work; duplicate keys, keys that are no text and recursion are refused.

Numbers are those of YAML 1.2 (and `1_000`): by 1.1, which PyYAML reads, `1e-3` is text and `12:30` the number 750. What
the two read otherwise and people mean either way (`012`, `yes`, `off`) is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from trainflow.bounds import MOST_NESTING
from trainflow.errors import PipelineFileError
from trainflow.pipeline_spec.problems import Location, SourcePlace, SpecProblem, dotted, error_of

#: the C scanner where PyYAML was built with it: ten times faster
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: more values than any pipeline has: an alias that multiplies itself ends here and not in the memory
MAX_VALUES = 100_000

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("null", "bool", "int", "float")}
_TEXT = {_TAG + name for name in ("str", "timestamp")}
_COLLECTIONS = {_TAG + "seq", _TAG + "map"}
_MERGE = _TAG + "merge"
_INT = re.compile(r"[-+]?(?:[0-9][0-9_]*|0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+)$")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+$")


class _Loader(_SafeLoader):  # type: ignore[misc]
    """The loader, with the numbers of YAML 1.2."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, written) for tag, written in resolvers if tag not in (_TAG + "int", _TAG + "float")]
        for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))


@dataclass
class Document:
    """The values of one file, the place of each, and the places of their keys."""

    value: Any
    places: dict[Location, SourcePlace] = field(default_factory=dict)
    key_places: dict[Location, SourcePlace] = field(default_factory=dict)

    def place_of(self, location: Location, *, key: bool = False) -> SourcePlace:
        """The place of a value (or of its key), or of what is nearest around it. One entry may stand without the list
        it is in: `location` numbers it all the same."""
        places = self.places | self.key_places if key else self.places
        found: Location = ()
        for part in location:
            if (*found, part) in places:
                found = (*found, part)
            elif isinstance(part, str):
                break
        return places[found]


def read_document(text: str, source: str, *, at: SourcePlace | None = None) -> Document:
    """The document in `text`, which came from `source` (as people name it). With `at`, everything stands there.

    Raises PipelineFileError telling every problem with its line and column.
    """
    _check_nesting(text, source, at)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        walk = _Walk(loader, source, at)
        value = None if node is None else walk.value(node, ())
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, source, at) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise PipelineFileError(f"not valid YAML: {' '.join(str(error).split())}", path=source) from None
    finally:
        loader.dispose()
    walk.places.setdefault((), at or SourcePlace(source, 1, 1))
    if walk.problems:
        raise error_of(walk.problems)
    return Document(value, walk.places, walk.key_places)


def _check_nesting(text: str, source: str, at: SourcePlace | None) -> None:
    """Composing a document takes stack for each level, and the C library does not say when there is none left: events
    are looked at first, where a document could be nested too deeply at all."""
    indentation = max((len(line) - len(line.lstrip(" -?")) for line in text.splitlines()), default=0)
    if text.count("[") + text.count("{") + indentation < MOST_NESTING:
        return
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_NESTING:
                mark = event.start_mark
                place = at or SourcePlace(source, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1)
                raise error_of([SpecProblem(place, f"lists and sections are nested more than {MOST_NESTING} times")])
    except yaml.YAMLError:
        return  # told where it is read


class _Walk:
    """One pass over the nodes of a document."""

    def __init__(self, loader: Any, source: str, at: SourcePlace | None) -> None:
        self.places: dict[Location, SourcePlace] = {}
        self.key_places: dict[Location, SourcePlace] = {}
        self.problems: list[SpecProblem] = []
        self._loader = loader
        self._source = source
        self._at = at
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: Any, location: Location) -> Any:
        self.places.setdefault(location, self._place(node))
        self._count += 1
        if self._count > MAX_VALUES:
            raise error_of([SpecProblem(self._place(node), f"more than {MAX_VALUES} values; aliases repeat too much")])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in _COLLECTIONS:
            return self._tagged(node)
        if id(node) in self._open:
            return self._wrong(node, "an alias inside the section it stands for")
        if len(location) > MOST_NESTING:
            return self._wrong(node, f"lists and sections are nested more than {MOST_NESTING} times")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, location)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: Any) -> Any:
        if node.tag in _TEXT:
            return node.value
        if node.tag not in _SCALARS:
            return self._tagged(node)
        if node.tag == _TAG + "int" and _LEADING_ZERO.match(node.value):
            return self._wrong(node, f"{node.value!r} may be meant as text: quote it, or leave the 0 before it out")
        if node.tag == _TAG + "bool" and node.value.lower() not in ("true", "false"):
            return self._wrong(node, f"{node.value!r} may be meant as text: quote it, or write true or false")
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError):
            return self._wrong(node, f"{node.value!r} is not a value of type {node.tag.replace(_TAG, '')}")
        if isinstance(value, float) and not math.isfinite(value):
            return self._wrong(node, f"{node.value!r} has no form in JSON: write a finite number")
        return value

    def _tagged(self, node: Any) -> None:
        self._wrong(node, f"tag {node.tag.replace(_TAG, '!!')!r} is not allowed here: write a plain value")

    def _mapping(self, node: Any, location: Location) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = {**self._merge(value_node, location), **merged}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self._key(key_node, location)
            if key is None:
                continue
            if key in own:
                first = self.key_places[(*location, key)].line
                before = f", first in line {first}" if first is not None else ""
                self._wrong(key_node, f"key {dotted((*location, key))!r} is written twice{before}")
                continue
            if key in merged:
                self._forget((*location, key))
            self.key_places[(*location, key)] = self._place(key_node)
            own[key] = self.value(value_node, (*location, key))
        return {**merged, **own}

    def _merge(self, node: Any, location: Location) -> dict[str, Any]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in nodes:
            if not isinstance(source, yaml.MappingNode):
                self._wrong(source, "'<<' merges sections only")
                continue
            values = self.value(source, location)
            merged = {**(values or {}), **merged}
        return merged

    def _key(self, node: Any, location: Location) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in _TEXT:
            return str(node.value)
        written = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list or section"
        where = f" in {dotted(location)!r}" if location else ""
        self._wrong(node, f"key {written}{where} is not text: quote it")
        return None

    def _forget(self, location: Location) -> None:
        """Drop the places of a merged value that an own key replaces."""
        for places in (self.places, self.key_places):
            for known in [known for known in places if known[: len(location)] == location]:
                del places[known]

    def _wrong(self, node: Any, message: str) -> None:
        self.problems.append(SpecProblem(self._place(node), message))

    def _place(self, node: Any) -> SourcePlace:
        return self._at or SourcePlace(self._source, node.start_mark.line + 1, node.start_mark.column + 1)


def _syntax_error(error: yaml.MarkedYAMLError, text: str, source: str, at: SourcePlace | None) -> PipelineFileError:
    mark = error.problem_mark or error.context_mark
    line = text.splitlines()[mark.line] if mark is not None and mark.line < len(text.splitlines()) else ""
    what = " ".join(part for part in (error.context, error.problem) if part)
    place = at or (SourcePlace(source) if mark is None else SourcePlace(source, mark.line + 1, mark.column + 1))
    began = error.context_mark
    if at is None and began is not None and mark is not None and began.line != mark.line:
        what += f"; what is not finished began in line {began.line + 1}, column {began.column + 1}"
    if line[:1] == "\t" or "'\\t'" in what:
        what = "a tab: YAML is indented with spaces"
    return error_of([SpecProblem(place, f"not valid YAML: {what}")])
