"""Have a pipeline file read in a child process: a command never imports a pipeline itself, and never hangs with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from trainflow.bootstrap import interpreter
from trainflow.errors import InputError
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

if TYPE_CHECKING:
    from trainflow.messages.parsed_file import ParsedFile
    from trainflow.messages.workload import ParseResult

_LAST_LINES = 5


def parse(project: Project, settings: Settings, path: Path, overrides: dict[str, str]) -> ParseResult:
    """The documents of a file's DAGs. Raises InputError with what is wrong in the file, or that it hangs."""
    return read_file(project, settings, path, overrides).result


def read_file(project: Project, settings: Settings, path: Path, overrides: dict[str, str]) -> ParsedFile:
    """Read a file as `parse` does, and how the pipeline reaches its chains."""
    import msgspec

    from trainflow.messages.parsed_file import ParsedFile
    from trainflow.messages.workload import DagSource, ParseFile

    request = ParseFile(DagSource(project.relative(path), overrides), str(project.root), str(project.home.path))
    answer = _ask(msgspec.json.encode(request), path, settings.dag_processor.parse_timeout_seconds)
    parsed = msgspec.json.decode(answer, type=ParsedFile)
    if parsed.result.problem is not None:
        raise InputError(parsed.result.problem.message)
    return parsed


def _ask(request: bytes, path: Path, seconds: float) -> bytes:
    process = subprocess.Popen(
        interpreter("trainflow.execution.parse_file", str(os.getpid()), str(seconds)),
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
        _end(process)
    if not answer:
        last = " | ".join(complaint.decode(errors="replace").strip().splitlines()[-_LAST_LINES:])
        raise InputError(
            f"{path}: the process that imported it ended without an answer (exit code {process.returncode}): "
            f"it crashes or calls exit{': ' + last if last else ''}"
        )
    return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what the file started: nothing of it outlives the answer."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with process:
        pass
