"""A pipeline file, its overrides and its parameters → the DAG."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from trainflow.authoring.dag import DAG
from trainflow.errors import InputError, PipelineFileError
from trainflow.identifiers import canonical_json, digest
from trainflow.pipeline_spec.compile import compile_pipeline
from trainflow.pipeline_spec.model import PipelineFile, PipelineSpec
from trainflow.pipeline_spec.overrides import apply_overrides, merge_parameters, misspelt_parameters
from trainflow.pipeline_spec.problems import SpecProblem, error_of, shown
from trainflow.pipeline_spec.quantities import format_duration
from trainflow.pipeline_spec.sections import Section
from trainflow.pipeline_spec.validation import validate
from trainflow.pipeline_spec.yaml_reader import Document, read_document
from trainflow.settings.project import Project


class LoadedPipeline(NamedTuple):
    """The DAGs of a pipeline file, one a stage; the digest of the resolved file, which is the `content` of the DAGs'
    documents; and the other files it was made from."""

    dags: tuple[DAG, ...]
    content: str
    files: tuple[Path, ...] = ()


def load_pipeline_file(path: Path, overrides: Mapping[str, str], project: Project) -> LoadedPipeline:
    """Read, check and compile a pipeline file. Raises PipelineFileError telling every problem, each with its place."""
    spec = load_spec(path, overrides, project)
    try:
        dags = compile_pipeline(spec)
    except InputError as error:  # what an operator refuses and the model does not know of
        raise PipelineFileError(str(error), path=project.relative(path)) from error
    for dag in dags:
        dag.fileloc = str(path)
    configs = dict.fromkeys(stage.config for stage in spec.stages.values() if stage.config)
    return LoadedPipeline(dags, content_of(spec), tuple(project.root / config for config in configs))


def load_spec(path: Path, overrides: Mapping[str, str], project: Project) -> PipelineSpec:
    """The resolved pipeline: the file, `--set` laid over it, the parameters of its `config` underneath, and each stage
    with what it takes from the keys of the file.

    Raises PipelineFileError telling every problem, each with its place.
    """
    document = _read(path, project)
    known = set(document.key_places)
    problems = apply_overrides(document, overrides)
    known |= merge_parameters(document, project.root)
    problems += misspelt_parameters(overrides, known)
    return validate(document, project.root, problems)


def content_of(spec: PipelineSpec) -> str:
    """Digest of a resolved pipeline: the same in every process, another as soon as any value in it is another."""
    return digest(canonical_json(spec.model_dump(mode="json")))


def json_schema() -> dict[str, Any]:
    """JSON Schema of a pipeline file, for editors."""
    schema = PipelineFile.model_json_schema()
    _describe(schema, PipelineFile)
    for name, section in schema["$defs"].items():
        if (model := _sections().get(name)) is not None:
            _describe(section, model)
    # with stages, what one of them lacks may stand at the top, and the reverse
    schema["anyOf"] = [{"required": ["pipeline", "samples", "train"]}, {"required": ["pipeline", "stages"]}]
    for section in (schema, *schema["$defs"].values()):
        _write_durations(section.get("properties", {}))
    for section in (schema, schema["$defs"]["StageSpec"], schema["$defs"]["SamplesSection"]):
        section.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "trainflow pipeline"}


def _sections(of: type[Section] = Section) -> dict[str, type[Section]]:
    return {
        name: found for each in of.__subclasses__() for name, found in {each.__name__: each, **_sections(each)}.items()
    }


def _describe(schema: dict[str, Any], model: type[Section]) -> None:
    """Say of each key what is written below its attribute. Here, where it is asked for: Pydantic reads the source of
    every class for that when it is imported, 30 ms for each process that reads a pipeline file."""
    for each in reversed([base for base in model.__mro__ if issubclass(base, Section)]):
        (definition,) = ast.parse(inspect.getsource(each)).body
        assert isinstance(definition, ast.ClassDef)
        for attribute, text in pairwise(definition.body):
            match attribute, text:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(said))):
                    described = {**schema["properties"][name], "description": inspect.cleandoc(said)}
                    schema["properties"][name] = dict(sorted(described.items()))


def _write_durations(properties: dict[str, Any]) -> None:
    """Pydantic writes a default as `PT10S`; in a file it is `10s`."""
    for value in properties.values():
        default = value.get("default")
        if isinstance(default, str) and default.startswith("PT"):
            value["default"] = format_duration(TypeAdapter(timedelta).validate_python(default))


def _read(path: Path, project: Project) -> Document:
    source = project.relative(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PipelineFileError(f"not UTF-8 text (byte {error.start})", path=source) from None
    except OSError as error:
        raise PipelineFileError(f"cannot be read: {error.strerror}", path=source) from None
    document = read_document(text, source)
    if not isinstance(document.value, dict):
        message = f"a pipeline file is a section of keys; got {shown(document.value)}"
        raise error_of([SpecProblem(document.place_of(()), message)])
    return document
