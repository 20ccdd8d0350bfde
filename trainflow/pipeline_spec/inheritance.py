"""The stages of a document: each with what it takes from the keys of the file. One chain is a stage like any other.

Values are moved and merged; where each was written is remembered, so that what is wrong with it is told there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainflow.pipeline_spec.model import PIPELINE_KEYS
from trainflow.pipeline_spec.problems import Location, SourcePlace, SpecProblem, shown
from trainflow.pipeline_spec.yaml_reader import Document

#: said by a stage, these replace what the file says of the other
_EXCLUSIVE = {"function": "command", "command": "function"}
#: these are taken whole, or not at all
_WHOLE = ("store",)


@dataclass
class Expanded:
    """A document in which every stage says everything."""

    document: Document
    value: Any
    #: where a value comes from: location here → location in the document
    origins: dict[Location, Location] = field(default_factory=dict)

    def written(self, location: Location) -> Location:
        """Where the document says what is at `location`."""
        for length in range(len(location), 0, -1):
            origin = self.origins.get(location[:length])
            if origin is not None:
                return (*origin, *location[length:])
        return location

    def place_of(self, location: Location, *, key: bool = False) -> SourcePlace:
        """The place of a value (or of its key), or of what is nearest around it."""
        return self.document.place_of(self.written(location), key=key)


def expand(document: Document) -> tuple[Expanded, list[SpecProblem]]:
    """The stages of a document whose value is a mapping; and what is wrong with how it names them."""
    written: dict[str, Any] = document.value
    shared = {key: value for key, value in written.items() if key not in PIPELINE_KEYS}
    pipeline = {key: value for key, value in written.items() if key in PIPELINE_KEYS and key not in ("stage", "stages")}
    if "stages" not in written:
        name = written.get("stage", "main")
        expanded = Expanded(document, {**pipeline, "stages": {name: shared}})
        expanded.origins[("stages", name)] = ()
        return expanded, []
    problems = _misplaced(document, written)
    stages = written["stages"]
    if not isinstance(stages, dict) or not stages:
        place = document.place_of(("stages",))
        problems.append(
            SpecProblem(place, f"stages: expected a section with a key for each stage; got {shown(stages)}")
        )
        stages = {}
    expanded = Expanded(document, {**pipeline, "stages": {}})
    for name, own in stages.items():
        at = ("stages", name)
        merged = _merge(shared, {} if own is None else own, (), at, expanded.origins)
        expanded.value["stages"][name] = merged
    return expanded, problems


def _misplaced(document: Document, written: dict[str, Any]) -> list[SpecProblem]:
    return [
        SpecProblem(document.place_of((key,), key=True), f"{key!r} belongs to one stage: {instead}")
        for key, instead in (
            ("stage", "with 'stages', each is named by its key"),
            ("init_from", "write it into that stage, stages.NAME.init_from"),
        )
        if key in written
    ]


def _merge(below: Any, above: Any, inherited: Location, at: Location, origins: dict[Location, Location]) -> Any:
    """`above` with what it does not say taken from `below`, which is at `inherited` in the document."""
    if not isinstance(above, dict) or not isinstance(below, dict):
        return above
    merged = {}
    for key, value in below.items():
        if key not in above and _EXCLUSIVE.get(key) not in above:
            merged[key] = value
            origins[(*at, key)] = (*inherited, key)
    for key, value in above.items():
        under = None if key in _WHOLE else below.get(key)
        merged[key] = _merge(under, value, (*inherited, key), (*at, key), origins)
    return merged
