"""What a pipeline file says: read in a child process, or, where that would take too long, by the names in it.

A command never imports a pipeline itself, and never hangs with it; `status` and `why` answer at once, also about a file
that no engine has read, or that hangs.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainflow.bootstrap import interpreter
from trainflow.errors import InputError, PipelineFileError
from trainflow.observability.resource_exhaustion import ended_in_words
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

if TYPE_CHECKING:
    from trainflow.messages.parsed_file import ChainAccess, ParsedFile
    from trainflow.messages.workload import ParseResult
    from trainflow.serialization.document import ChainDocument


_LAST_LINES = 5


def parse(project: Project, settings: Settings, path: Path, overrides: dict[str, str]) -> ParseResult:
    """The documents of a file's DAGs. Raises InputError with what is wrong in the file, or that it hangs."""
    return read_file(project, settings, path, overrides).result


def read_file(project: Project, settings: Settings, path: Path, overrides: dict[str, str]) -> ParsedFile:
    """Read a file as `parse` does, and how the pipeline reaches its chains."""
    import msgspec

    from trainflow.messages.parsed_file import ParsedFile
    from trainflow.messages.workload import DagSource, ParseFile

    shown = project.relative(path)
    request = ParseFile(DagSource(shown, overrides), str(project.root), str(project.home.path))
    answer = _ask(msgspec.json.encode(request), shown, settings.dag_processor.parse_timeout_seconds)
    parsed = msgspec.json.decode(answer, type=ParsedFile)
    if parsed.result.problem is not None:
        raise InputError(parsed.result.problem.message)
    return parsed


def _ask(request: bytes, path: str, seconds: float) -> bytes:
    from trainflow.observability.process_lifetime import signal_group

    process = subprocess.Popen(
        interpreter("trainflow.execution.parse_main", str(os.getpid()), str(seconds)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        answer, complaint = process.communicate(request, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{path}: importing it took longer than {seconds:g} s: a pipeline file must only describe, "
            "not load or compute (dag_processor.parse_timeout_seconds sets the limit)"
        ) from None
    finally:
        # nothing that the file started outlives the answer
        with process:
            signal_group(process.pid, signal.SIGKILL)
    if not answer:
        last = " | ".join(complaint.decode(errors="replace").strip().splitlines()[-_LAST_LINES:])
        code = process.returncode
        how = ended_in_words(code, -code if code < 0 else None)
        raise InputError(
            f"{path}: the process that imported it ended without an answer ({how}){': ' + last if last else ''}"
        )
    return answer


#: a file that is larger is not looked into, in bytes
_LARGEST = 1_000_000


class UnreadDag(NamedTuple):
    """A DAG that a file seems to define, and its chain: None where only the code of the file knows."""

    dag_id: str
    chain: ChainDocument | None = None
    access: ChainAccess | None = None


def dags_named_in(path: Path) -> list[UnreadDag]:
    """The DAGs of a file by the names in it: of YAML one a stage, of Python the file's own name.

    Raises PipelineFileError for what is no YAML.
    """
    document = _document_of(path)
    pipeline = document.get("pipeline")
    if not isinstance(pipeline, str):
        return [UnreadDag(path.stem)]
    stages = document.get("stages")
    if not isinstance(stages, dict) or not stages:
        return [_named(document, pipeline, _text(document.get("stage"), "main"), document)]
    return [_named(document, pipeline, name, each if isinstance(each, dict) else {}) for name, each in stages.items()]


def _document_of(path: Path) -> dict[str, Any]:
    from trainflow.pipeline_spec.yaml_reader import read_document

    try:
        if path.suffix == ".py" or path.stat().st_size > _LARGEST:
            return {}
        value = read_document(path.read_text(encoding="utf-8"), str(path)).value
    except (OSError, UnicodeError, RecursionError) as error:
        raise PipelineFileError(f"cannot be read: {error}", path=str(path)) from None
    return value if isinstance(value, dict) else {}


def _named(document: dict[str, Any], pipeline: str, stage: str, section: dict[str, Any]) -> UnreadDag:
    from trainflow.identifiers import chain_dag_id
    from trainflow.messages.parsed_file import ChainAccess
    from trainflow.serialization.document import ChainDocument

    branch = _text(document.get("branch"), "main")
    store = next(_sections("store", section, document), {})
    samples = next(_sections("samples", section, document), {})
    chain = ChainDocument(pipeline, stage, branch, _text(store.get("url"), ""))
    access = ChainAccess(store_options=_options(store), sample_options=_options(samples))
    return UnreadDag(chain_dag_id(pipeline, stage, branch), chain, access)


def _sections(key: str, *places: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for place in places:
        found = place.get(key)
        if isinstance(found, str):
            yield {"url": found}
        elif isinstance(found, dict):
            yield found


def _options(section: dict[str, Any]) -> dict[str, Any]:
    options = section.get("storage_options")
    return options if isinstance(options, dict) else {}


def _text(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) else otherwise


def is_changed(file: Path, since: datetime) -> bool:
    """Whether a file was changed after it was read: what was wrong with it may be mended, and is not read here."""
    return file.is_file() and file.stat().st_mtime > since.timestamp()


def recorded_problem(message: str, at: datetime) -> str:
    """What was wrong with a file that has changed since."""
    return f"recorded at {at:%H:%M} UTC, and the file has changed since: {message}"
