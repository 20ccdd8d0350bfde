"""A pipeline file, its overrides and its parameters → the DAG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trainflow.authoring.dag import DAG
from trainflow.errors import InputError, PipelineFileError
from trainflow.identifiers import canonical_json, digest
from trainflow.pipeline_spec.compile import compile_pipeline
from trainflow.pipeline_spec.model import PipelineSpec
from trainflow.pipeline_spec.overrides import apply_overrides
from trainflow.pipeline_spec.parameters import merge_parameters
from trainflow.pipeline_spec.problems import Problem, error_of, shown
from trainflow.pipeline_spec.reading import Document, read_document
from trainflow.pipeline_spec.validation import validate
from trainflow.settings.project import Project


class LoadedPipeline(NamedTuple):
    """The DAG of a pipeline file, the digest of the resolved file, which is the DAG document's `content`, and the other
    files it was made from."""

    dag: DAG
    content: str
    files: tuple[Path, ...] = ()


def load_pipeline_file(path: Path, overrides: Mapping[str, str], project: Project) -> LoadedPipeline:
    """Read, check and compile a pipeline file. Raises PipelineFileError telling every problem, each with its place."""
    spec = load_spec(path, overrides, project)
    try:
        dag = compile_pipeline(spec)
    except InputError as error:  # what an operator refuses and the model does not know of
        raise PipelineFileError(str(error), path=project.relative(path)) from error
    dag.fileloc = str(path)
    return LoadedPipeline(dag, content_of(spec), (project.root / spec.config,) if spec.config else ())


def load_spec(path: Path, overrides: Mapping[str, str], project: Project) -> PipelineSpec:
    """The resolved pipeline: the file, `--set` laid over it, the parameters of its `config` underneath.

    Raises PipelineFileError telling every problem, each with its place.
    """
    document = _read(path, project)
    problems = apply_overrides(document, overrides)
    merge_parameters(document, project.root)
    return validate(document, project.root, problems)


def content_of(spec: PipelineSpec) -> str:
    """Digest of a resolved pipeline: the same in every process, another as soon as any value in it is another."""
    return digest(canonical_json(spec.model_dump(mode="json")))


def json_schema() -> dict[str, Any]:
    """JSON Schema of a pipeline file, for editors."""
    schema = PipelineSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "trainflow pipeline"}


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
        raise error_of([Problem(document.place_of(()), message)])
    return document
