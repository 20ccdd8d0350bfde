"""A model's file of parameters (`config: configs/model.yaml`), laid underneath the pipeline's own `params`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainflow.pipeline_spec.problems import Location, SpecProblem, dotted, error_of, shown, suggest
from trainflow.pipeline_spec.yaml_reader import Document, read_document


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
        section["params"] = _merge(below.value or {}, above or {})
        _add_places(document, below, (*at, "params"))
    return {(*at, "params", *inner) for inner in below.key_places}


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        merged[key] = _merge(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return merged


def _add_places(document: Document, below: Document, at: Location) -> None:
    for ours, theirs in ((document.places, below.places), (document.key_places, below.key_places)):
        for inner, place in theirs.items():
            ours.setdefault((*at, *inner), place)
