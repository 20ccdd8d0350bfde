"""Ask, before anything is begun, whether the stores that a pipeline names can be used, and say which line names one
that cannot.

Asked in a child process, beside the start of the engine: the drivers of stores are heavy, and have threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trainflow.errors import InputError, PipelineFileError

if TYPE_CHECKING:
    from trainflow.messages.parsed_file import StoreProblem
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project

#: a process that hangs for another reason than a store is given up, so long after the stores would have been
_MOST_SECONDS = 30.0


class StoreCheck:
    """A check that is under way. Ends with the `with` block."""

    def __init__(self, project: Project, settings: Settings, path: Path, overrides: dict[str, str]) -> None:
        self._project = project
        self._settings = settings
        self._path = path
        self._overrides = overrides
        self._most_seconds = _MOST_SECONDS + 5 * settings.engine.store_check_seconds
        self._process: subprocess.Popen[bytes] | None = None
        if self._may_name_a_store():
            self._begin()

    def __enter__(self) -> StoreCheck:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            with self._process:
                pass

    def raise_if_refused(self, urls: list[str]) -> None:
        """Wait for the answers. `urls`: what the pipeline names, once it has been read. Raises InputError that says
        where each place that cannot be used is written, why it cannot, and what to do."""
        asks = self._settings.engine.store_check_seconds > 0
        if asks and self._process is None and any("://" in url for url in urls):
            self._begin()
        if self._process is None:
            return
        found = self._answer(self._process)
        if found:
            raise InputError("\n".join(f"{self._written_at(each)}: {each.message}" for each in found))

    def _may_name_a_store(self) -> bool:
        """Whether the settings or the text of the file hold a URL: then the check need not wait for the file."""
        if not self._settings.engine.store_check_seconds:
            return False
        try:
            return "://" in self._settings.checkpoints.store or "://" in self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeError):
            return False

    def _begin(self) -> None:
        import msgspec

        from trainflow.messages.workload import DagSource, ParseFile

        source = DagSource(self._project.relative(self._path), self._overrides)
        request = msgspec.json.encode(ParseFile(source, str(self._project.root), str(self._project.home.path)))
        # -P: the folder the command was typed in must hide nothing that the pipeline imports
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "trainflow.execution.check_stores_main",
                str(os.getpid()),
                str(self._most_seconds),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already: no answer is no refusal
            self._process.stdin.write(request)
            self._process.stdin.close()
        self._process.stdin = None

    def _answer(self, process: subprocess.Popen[bytes]) -> list[StoreProblem]:
        """What refused; nothing where the process found no answer: then the run itself finds out."""
        import msgspec

        from trainflow.messages.parsed_file import StoreProblem

        try:
            answer, _ = process.communicate(timeout=self._most_seconds)
            return msgspec.json.decode(answer, type=list[StoreProblem])
        except (subprocess.TimeoutExpired, msgspec.DecodeError):
            return []

    def _written_at(self, problem: StoreProblem) -> str:
        """The line of the pipeline, or the setting, that names the place."""
        if not problem.key:
            return "the setting checkpoints.store"
        stored = self._project.relative(self._path)
        for name in self._overrides:
            if name.removesuffix(".url") in (problem.key, f"stages.{problem.stage}.{problem.key}"):
                return f"--set {name}"
        return f"{self._line_of(problem, stored)}: {problem.key}" if self._path.suffix != ".py" else stored

    def _line_of(self, problem: StoreProblem, stored: str) -> str:
        from trainflow.pipeline_spec.yaml_reader import read_document

        try:
            document = read_document(self._path.read_text(encoding="utf-8"), stored)
        except (OSError, UnicodeError, PipelineFileError):
            return stored
        keys = tuple(problem.key.split("."))
        for location in (("stages", problem.stage, *keys), keys):
            if location[:-1] in document.places and location in document.places:
                return f"{stored}:{document.places[location].line}"
        return stored
