"""Read one pipeline file and describe its DAGs: runs in a child process, which may hang or die."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import msgspec

from trainflow.errors import InputError, PipelineFileError
from trainflow.execution import dag_files
from trainflow.messages.workload import ParsedDag, ParseFile, ParseProblem, ParseResult
from trainflow.serialization.document import encode
from trainflow.serialization.from_dag import to_document
from trainflow.settings.project import project_at


def _ignore(_loaded: dag_files.LoadedFile) -> None:
    return None


def parse(request: ParseFile, *, on_loaded: Callable[[dag_files.LoadedFile], None] = _ignore) -> ParseResult:
    """The documents of a file's DAGs, or why there are none; never raises for what is in the file.

    `on_loaded` is given the DAGs themselves, once there are documents of all of them.
    """
    from pathlib import Path

    project = project_at(Path(request.project_root))
    try:
        loaded = dag_files.load(request.source, project)
        dags = [
            ParsedDag(dag.dag_id, msgspec.Raw(encode(to_document(dag, loaded.content)))) for dag in loaded.dags.values()
        ]
    except PipelineFileError as error:
        return ParseResult(problem=ParseProblem(str(error), _traceback(error), error.path, error.line, error.column))
    except InputError as error:
        path = str(project.absolute(request.source.path))
        return ParseResult(problem=ParseProblem(f"{path}: {error}", _traceback(error), path))
    except Exception as error:
        path = str(project.absolute(request.source.path))
        message = f"{path}: {type(error).__name__}: {error}"
        return ParseResult(problem=ParseProblem(message, _traceback(error), path))
    on_loaded(loaded)
    read = [*loaded.files, *dag_files.project_modules(project)]
    return ParseResult(dags=dags, modules=[str(path) for path in read])


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
