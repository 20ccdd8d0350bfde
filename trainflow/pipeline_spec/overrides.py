"""`--set key=value`: lay values over a document, each remembering that it came from the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from trainflow.errors import PipelineFileError
from trainflow.pipeline_spec.problems import Location, SourcePlace, SpecProblem, dotted, shown, suggest
from trainflow.pipeline_spec.yaml_reader import Document, read_document


def apply_overrides(document: Document, overrides: Mapping[str, str]) -> list[SpecProblem]:
    """Set each dotted path (`split.partitions`) to its value, read as YAML; sections on the way are made.

    Changes `document`; returns what cannot be set. Whether a key exists at all is for the model to say.
    """
    problems: list[SpecProblem] = []
    for path, written in overrides.items():
        place, location = SourcePlace(f"--set {path}={written}"), tuple(path.split("."))
        problem = _apply(document, location, written, place)
        if problem:
            problems.append(SpecProblem(place, problem))
    return problems


def _apply(document: Document, location: Location, written: str, place: SourcePlace) -> str | None:
    if not all(location):
        return "name the key with dots between its sections: --set split.partitions=7"
    try:
        value = read_document(written, place.source, at=place)
    except PipelineFileError as error:
        return error.problem
    section = document.value
    for depth, part in enumerate(location[:-1], start=1):
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            whole = dotted(location[:depth])
            return f"{whole!r} is {shown(section)} and has no keys: set it whole, --set '{whole}=…'"
    section[location[-1]] = value.value
    _move(document, value, location)
    return None


def _move(document: Document, value: Document, location: Location) -> None:
    """Move everything at `location` to where the value stands."""
    for places, new in ((document.places, value.places), (document.key_places, value.key_places)):
        for known in [known for known in places if known[: len(location)] == location]:
            del places[known]
        places.update({(*location, *inner): place for inner, place in new.items()})
    for depth in range(1, len(location) + 1):
        document.key_places.setdefault(location[:depth], value.places[()])
        document.places.setdefault(location[:depth], value.places[()])


def misspelt_parameters(overrides: Mapping[str, str], known: Collection[Location]) -> list[SpecProblem]:
    """A parameter may have any name; one that nothing has written, and nearly that of another, is taken for a slip.
    `known`: the keys of the file and of its files of parameters, as they were before."""
    problems: list[SpecProblem] = []
    for path, written in overrides.items():
        location = tuple(path.split("."))
        if "params" not in location[:-1]:
            continue
        inherited = location[location.index("params") :]
        if location in known or inherited in known:
            continue
        others = [str(key[-1]) for key in known if key and key[:-1] in (location[:-1], inherited[:-1])]
        near = suggest(location[-1], others)
        if near:
            message = f"there is no parameter {dotted(inherited[1:])!r}{near}; a new one is written into the file first"
            problems.append(SpecProblem(SourcePlace(f"--set {path}={written}"), message))
    return problems
