"""Values of a document against the model; what pydantic finds, told in the words of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from trainflow.pipeline_spec.model import PipelineSpec
from trainflow.pipeline_spec.problems import Location, Problem, dotted, error_of, shown, suggest
from trainflow.pipeline_spec.reading import Document

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


def validate(document: Document, root: Path | None, known: Iterable[Problem] = ()) -> PipelineSpec:
    """The pipeline a document describes; functions are looked for in the project `root` (None: not at all).

    Raises PipelineFileError with every problem, those already `known` included.
    """
    problems = list(known)
    try:
        spec = PipelineSpec.model_validate(document.value, context={"root": root})
    except ValidationError as error:
        found = _without_misspelt(error.errors(include_url=False))
        raise error_of([*problems, *(_problem(document, item) for item in found)]) from None
    if problems:
        raise error_of(problems)
    return spec


def _without_misspelt(errors: list[Any]) -> list[Any]:
    """Leave out a missing key whose misspelling is told anyway."""
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]

    def misspelt(location: Location) -> bool:
        return any(suggest(key, [str(location[-1])]) for *section, key in unknown if section == [*location[:-1]])

    return [error for error in errors if error["type"] != "missing" or not misspelt(error["loc"])]


def _problem(document: Document, error: Any) -> Problem:
    location, kind = _location(error["loc"]), error["type"]
    at_key = kind in ("extra_forbidden", "missing")
    return Problem(document.place_of(location, key=at_key), _message(location, kind, error))


def _location(reported: tuple[str | int, ...]) -> Location:
    """pydantic adds `[key]` where a key of a mapping is wrong."""
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
        return f"{name or 'a pipeline file'}: expected {_EXPECTED[kind]}; got {shown(value)}"
    return f"{name}: {error['msg'].removeprefix('Input ')}; got {shown(value)}"


def _unknown_key(location: Location) -> str:
    allowed = list(_model_at(location[:-1]).model_fields)
    key = str(location[-1])
    return f"unknown key {key!r} in {_section(location[:-1])}{suggest(key, allowed)}; allowed: {', '.join(allowed)}"


def _section(location: Location) -> str:
    return f"section {dotted(location)!r}" if location else "the pipeline file"


def _choices(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").replace("'", "").split(", ")


def _model_at(location: Location) -> type[BaseModel]:
    """The section a location leads to."""
    model: type[BaseModel] = PipelineSpec
    for part in location:
        model = next(_models_in(model.model_fields[str(part)].annotation))
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
