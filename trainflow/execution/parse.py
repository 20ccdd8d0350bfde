"""Read one pipeline file and describe its DAGs: runs in a child process, which may hang or die."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import msgspec

from trainflow.errors import InputError, PipelineFileError, describe
from trainflow.execution import dag_files
from trainflow.messages.workload import ParsedDag, ParseFile, ParseProblem, ParseResult
from trainflow.observability.redaction import presentable
from trainflow.observability.resource_exhaustion import exhausted_resource
from trainflow.serialization.document import encode
from trainflow.serialization.from_dag import to_document
from trainflow.settings.executor_config import check_executor_config, check_nodes
from trainflow.settings.load import check_executors
from trainflow.settings.project import project_at

#: of what is wrong with a file, this much is told
_MESSAGE_CHARACTERS, _TRACEBACK_CHARACTERS = 16_000, 64_000


def parse(
    request: ParseFile, *, on_loaded: Callable[[dag_files.LoadedFile], None] = lambda _loaded: None
) -> ParseResult:
    """The documents of a file's DAGs, or why there are none; never raises for what is in the file.

    `on_loaded` is given the DAGs themselves, once there are documents of all of them.
    """
    from pathlib import Path

    project = project_at(Path(request.project_root))
    try:
        loaded = dag_files.load(request.source, project)
        for dag in loaded.dags.values():
            check_executors(project.root, [task.executor for task in dag.tasks])
            for task in dag.tasks:
                check_executor_config(project.root, task.task_id, task.executor, task.executor_config)
                check_nodes(project.root, task.task_id, task.executor, task.nodes)
        dags = [
            ParsedDag(dag.dag_id, msgspec.Raw(encode(to_document(dag, loaded.content)))) for dag in loaded.dags.values()
        ]
    except PipelineFileError as error:
        return _problem(str(error), error, error.path, error.line, error.column)
    except InputError as error:
        path = request.source.path
        return _problem(f"{path}: {error}", error, path)
    except Exception as error:
        path = request.source.path
        ran_out = exhausted_resource(error)
        said = f"{path}: {describe(error)}"
        return _problem(f"{said}: {ran_out}" if ran_out else said, error, path)
    on_loaded(loaded)
    read = [*loaded.files, *dag_files.project_modules(project)]
    return ParseResult(dags=dags, modules=[str(path) for path in read if _is_text(str(path))])


def _problem(
    message: str, error: BaseException, path: str, line: int | None = None, column: int | None = None
) -> ParseResult:
    """What is wrong with a file, in words that a message and a database can hold, whatever the file has raised."""
    trace = "".join(traceback.format_exception(error))
    message, trace = presentable(message, _MESSAGE_CHARACTERS), presentable(trace, _TRACEBACK_CHARACTERS)
    return ParseResult(problem=ParseProblem(message, trace, path, line, column))


def _is_text(path: str) -> bool:
    """Whether the name of a file is UTF-8; no message can hold another one."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
