"""Values laid over and under a document: `--set key=value`, and a model's file of parameters.

A value of `--set` remembers that it came from the command line. The file that `config` names (`configs/model.yaml`)
stands underneath the pipeline's own `params`, those of the document and of each stage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trainflow.errors import PipelineFileError
from trainflow.pipeline_spec.problems import Location, SourcePlace, SpecProblem, dotted, error_of, shown, suggest
from trainflow.pipeline_spec.yaml_reader import Document, read_document


def apply_overrides(document: Document, overrides: Mapping[str, str]) -> list[SpecProblem]:
    """Set each dotted path (`split.partitions`) to its value, read as YAML; sections on the way are made.

    Changes `document`; returns what cannot be set. Whether a key exists at all is for the model to say.
    """
    problems: list[SpecProblem] = []
    for path, written in overrides.items():
        place, location = SourcePlace(f"--set {path}={written}"), tuple(path.split("."))
        problem = _set(document, location, written, place)
        if problem:
            problems.append(SpecProblem(place, problem))
    return problems


def _set(document: Document, location: Location, written: str, place: SourcePlace) -> str | None:
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
    _move_places(document, value, location)
    return None


def _move_places(document: Document, value: Document, location: Location) -> None:
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


def merge_parameters(document: Document, root: Path) -> set[Location]:
    """Put the parameters of the file that `config` names (relative to the project `root`) underneath `params`: those of
    the document and those of each of its stages. Returns where the keys of these files stand now.

    Sections are merged key by key; anything else that `params` gives, lists included, replaces what the file says.
    Raises PipelineFileError at `config` where the file cannot be read, or at the file's own line.
    """
    found = _merge_into(document, (), document.value, root)
    stages = document.value.get("stages")
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        if isinstance(stage, dict):
            found |= _merge_into(document, ("stages", name), stage, root)
    return found


def _merge_into(document: Document, at: Location, section: dict[str, Any], root: Path) -> set[Location]:
    config = section.get("config")
    if not isinstance(config, str):
        return set()  # absent, or something that the model refuses
    path = root / config
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = suggest(path.name, [entry.name for entry in path.parent.glob("*.yaml")])
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        message = f"{dotted((*at, 'config'))}: cannot read {config!r} in {root} ({reason}){near}"
        raise error_of([SpecProblem(document.place_of((*at, "config")), message)]) from None
    below = read_document(text, config)
    if not isinstance(below.value, dict | None):
        message = f"a file of parameters is a section of keys; got {shown(below.value)}"
        raise error_of([SpecProblem(below.place_of(()), message)])
    above = section.get("params")
    if above is None or isinstance(above, dict):
        section["params"] = _merge_parameters(below.value or {}, above or {})
        _add_places(document, below, (*at, "params"))
    return {(*at, "params", *inner) for inner in below.key_places}


def _merge_parameters(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        merged[key] = _merge_parameters(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return merged


def _add_places(document: Document, below: Document, at: Location) -> None:
    for ours, theirs in ((document.places, below.places), (document.key_places, below.key_places)):
        for inner, place in theirs.items():
            ours.setdefault((*at, *inner), place)
