"""Values of a document against the model; what pydantic finds, told in the words of the file.

Each stage is checked with what it takes from the keys of the file; one chain is a stage like any other. Values are
moved and merged; where each was written is remembered, so that what is wrong with it is told there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from trainflow.pipeline_spec.model import PIPELINE_KEYS, PipelineFile, PipelineSpec, StageSpec
from trainflow.pipeline_spec.problems import Location, SourcePlace, SpecProblem, dotted, error_of, shown, suggest
from trainflow.pipeline_spec.stage_cycles import upstream_problems
from trainflow.pipeline_spec.yaml_reader import Document
from trainflow.settings.executors import nodes_problem
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at

_EXPECTED = {
    "string_type": "text (quote it)",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a section of keys",
    "model_type": "a section of keys",
    "model_attributes_type": "a section of keys",
}
#: a section with more keys is documented elsewhere
_MOST_KEYS = 8


def validate(document: Document, root: Path | None, known: Iterable[SpecProblem] = ()) -> PipelineSpec:
    """The pipeline a document describes; functions are looked for in the project `root` (None: not at all).

    Raises PipelineFileError with every problem, those already `known` included.
    """
    expanded, problems = expand(document)
    problems = [*known, *problems]
    try:
        spec = PipelineSpec.model_validate(expanded.value, context={"root": root})
    except ValidationError as error:
        found = _without_misspelt(expanded, error.errors(include_url=False))
        raise error_of([*problems, *(_problem(expanded, item) for item in found)]) from None
    for at, message in (*upstream_problems(spec), *_executor_problems(spec, root)):
        problems.append(SpecProblem(expanded.place_of(at), f"{dotted(expanded.written(at))}: {message}"))
    if problems:
        raise error_of(problems)
    for name, stage in spec.stages.items():
        stage.places.update(_places(expanded, name, stage))
    return spec


def _executor_problems(spec: PipelineSpec, root: Path | None) -> Iterator[tuple[Location, str]]:
    """What the executors of the project cannot give."""
    asking = {name: stage for name, stage in spec.stages.items() if stage.train.nodes > 1}
    if root is None or not asking:
        return
    settings = load_settings(project_at(root))
    for name, stage in asking.items():
        problem = nodes_problem(settings, stage.train.executor or stage.executor, stage.train.nodes)
        if problem is not None:
            yield ("stages", name, "train", "nodes"), problem


def _places(expanded: Expanded, name: str, stage: StageSpec) -> Iterator[tuple[str, str]]:
    """Where keys are written that are found wrong only when a task runs: the path of samples, and names of metrics."""
    keys: list[Location] = [("samples", "path"), *(("gates", number) for number, _ in enumerate(stage.gates))]
    for number, section in enumerate(stage.promote):
        keys += [("promote", number, "when", at) for at, _ in enumerate(section.when)]
    keys.append(("retention", "keep_best", "metric"))
    for key in keys:
        place = expanded.place_of(("stages", name, *key))
        yield dotted(key), place.source if place.line is None else f"{place.source}:{place.line}"


def _without_misspelt(expanded: Expanded, errors: list[Any]) -> list[Any]:
    """Leave out a missing key whose misspelling is told anyway."""
    unknown = [expanded.written(_location(error["loc"])) for error in errors if error["type"] == "extra_forbidden"]

    def misspelt(location: Location) -> bool:
        return any(suggest(key, [str(location[-1])]) for *section, key in unknown if section == [*location[:-1]])

    def told(error: Any) -> bool:
        return error["type"] != "missing" or not misspelt(expanded.written(_location(error["loc"])))

    return [error for error in errors if told(error)]


def _problem(expanded: Expanded, error: Any) -> SpecProblem:
    location, kind = expanded.written(_location(error["loc"])), error["type"]
    at_key = kind in ("extra_forbidden", "missing")
    return SpecProblem(expanded.document.place_of(location, key=at_key), _message(location, kind, error))


def _location(reported: tuple[str | int, ...]) -> Location:
    """Pydantic adds `[key]` where a key of a mapping is wrong."""
    return tuple(part for part in reported if part != "[key]")


def _message(location: Location, kind: str, error: Any) -> str:
    name, value = dotted(location), error["input"]
    if kind == "extra_forbidden":
        return _unknown_key(location)
    if kind == "missing":
        return f"{_section(location[:-1])} lacks the key {location[-1]!r}"
    if kind == "literal_error":
        allowed = [str(choice) for choice in _choices(error["ctx"]["expected"])]
        return f"{name}: expected {' or '.join(allowed)}; got {shown(value)}{suggest(value, allowed)}"
    if kind == "value_error":
        told = str(error["ctx"]["error"])
        return told if told.startswith(name) else f"{name}: {told}"
    if kind in _EXPECTED:
        expected, hint = _expected(location, kind, value)
        return f"{name or 'a pipeline file'}: expected {expected}; got {shown(value)}{hint}"
    return f"{name}: {error['msg'].removeprefix('Input ')}; got {shown(value)}"


def _expected(location: Location, kind: str, value: Any) -> tuple[str, str]:
    """What should be there, and how to write what is there so that it is right."""
    if kind in ("model_type", "model_attributes_type") and location:
        keys = list(_model_at(location).model_fields)
        expected = _EXPECTED[kind] + (f" ({', '.join(keys)})" if len(keys) <= _MOST_KEYS else "")
        return expected, f"; write {_as_section(value)}" if "function" in keys and isinstance(value, str) else ""
    if kind != "list_type":
        return _EXPECTED[kind], ""
    section = next(_models_in(_field_at(location)), None) if all(isinstance(part, str) for part in location) else None
    if section is not None and "require" not in section.model_fields:
        return f"a section of keys ({', '.join(section.model_fields)}), or a list of such", ""
    if not isinstance(value, str):
        return _EXPECTED[kind], ""
    return _EXPECTED[kind], f"; write {json.dumps(_words(value) if location[-1] == 'command' else [value])}"


def _as_section(function: str) -> str:
    """What stands in place of a section that names a function, as one."""
    module, _, name = function.rpartition(".")
    dotted_only = ":" not in function and all(part.isidentifier() for part in function.split("."))
    return f"{{function: {f'{module}:{name}' if module and dotted_only else function}}}"


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quote that is not closed
        return command.split()


def _unknown_key(location: Location) -> str:
    allowed = list(_model_at(location[:-1]).model_fields)
    key = str(location[-1])
    first = key.split()[0] if key.split() else key
    if first != key and first.rstrip("=") in allowed:
        return f"{key!r} is no key: a ':' is missing after {first.rstrip('=')!r}"
    return f"unknown key {key!r} in {_section(location[:-1])}{suggest(key, allowed)}; allowed: {', '.join(allowed)}"


def _section(location: Location) -> str:
    return f"section {dotted(location)!r}" if location else "the pipeline file"


def _choices(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").replace("'", "").split(", ")


def _model_at(location: Location) -> type[BaseModel]:
    """The section a location leads to."""
    model: type[BaseModel] = PipelineFile
    for part in location[2:] if location[:1] == ("stages",) else location:
        if isinstance(part, str):  # a number counts the entries of a list
            model = next(_models_in(model.model_fields[part].annotation))
    return StageSpec if location[:1] == ("stages",) and len(location) == 2 else model


def _field_at(location: Location) -> Any:
    """The type of what stands there."""
    return _model_at(location[:-1]).model_fields[str(location[-1])].annotation


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


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
