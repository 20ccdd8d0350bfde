"""BashOperator: run a command with bash."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from trainflow.authoring.context import Context
from trainflow.authoring.operator import BaseOperator
from trainflow.errors import FailException, SkipException, TaskError
from trainflow.observability.redaction import is_secret_key
from trainflow.operators.process_group import ProcessGroup


class BashOperator(BaseOperator):
    """Run `bash_command` in a process group of its own; the last line of its output is the task's result.

    `env`: the variables of the command, instead of this process's or (`append_env=True`) on top of them; their values
    appear in no message, and those of secrets (`DB_PASSWORD`, `API_TOKEN`) are masked where the command prints them.
    `cwd`: the folder to run in (default: a temporary one), relative to the project.
    `skip_on_exit_code`: exit codes that end the task as skipped (default 99; None: none does).

    A command that the task is told to stop gets SIGTERM, all its processes with it, and SIGKILL when it takes longer
    than ten seconds. Any other exit code than 0 fails the task, with the end of the output.
    """

    template_fields: ClassVar[Sequence[str]] = ("bash_command", "env", "cwd")
    template_ext: ClassVar[Sequence[str]] = (".sh", ".bash")

    def __init__(
        self,
        *,
        bash_command: str,
        env: dict[str, str] | None = None,
        append_env: bool = False,
        output_encoding: str = "utf-8",
        skip_on_exit_code: int | Collection[int] | None = 99,
        cwd: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bash_command = bash_command
        self.env = env
        self.append_env = append_env
        self.output_encoding = output_encoding
        self.skip_on_exit_code = skip_on_exit_code
        self.cwd = cwd
        self._group: ProcessGroup | None = None

    def execute(self, context: Context) -> str | None:
        """Returns the last line of the output, None when there was none."""
        ti = context["ti"]
        with tempfile.TemporaryDirectory(prefix="trainflow-") as temporary:
            self._group = group = ProcessGroup(
                [shutil.which("bash") or "bash", "-c", self.bash_command],
                cwd=self._folder(ti.project_root, Path(temporary)),
                env=self._environment(context),
                on_line=lambda line: ti.log.info("%s", line),
                encoding=self.output_encoding,
                hide=[value for name, value in (self.env or {}).items() if is_secret_key(name)],
            )
            code = group.run()
        self._judge(code, group)
        return group.tail[-1] if group.tail else None

    def on_kill(self) -> None:
        if self._group is not None:
            self._group.stop()

    def _folder(self, root: Path, temporary: Path) -> Path:
        if self.cwd is None:
            return temporary
        folder = root / self.cwd
        if not folder.is_dir():
            raise FailException(f"cannot run in {folder}: it is not a folder")
        return folder

    def _environment(self, context: Context) -> dict[str, str]:
        inherited = dict(os.environ) if self.env is None or self.append_env else {}
        ti = context["ti"]
        own = {
            "TRAINFLOW_CTX_DAG_ID": ti.dag_id,
            "TRAINFLOW_CTX_RUN_ID": ti.run_id,
            "TRAINFLOW_CTX_TASK_ID": ti.task_id,
            "TRAINFLOW_CTX_TRY_NUMBER": str(ti.try_number),
        }
        given = self.env or {}
        if wrong := sorted(name for name, value in given.items() if not isinstance(value, str)):
            raise FailException(f"env: the values of {', '.join(wrong)} are not strings")
        return {**inherited, **own, **given}

    def _judge(self, code: int, group: ProcessGroup) -> None:
        if code == 0:
            return
        if code in _codes(self.skip_on_exit_code):
            raise SkipException(f"the command ended with exit code {code}: skipped")
        raise TaskError(failure_message("the command", code, group.tail, group.out_of_memory))


def failure_message(what: str, code: int, tail: Sequence[str] | Collection[str], out_of_memory: str = "") -> str:
    """What failed, how, and the end of its output."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if out_of_memory:
        how = f"{how}: {out_of_memory}"
    shown = "\n  ".join(tail)
    return f"{what} {how}; the end of its output:\n  {shown}" if shown else f"{what} {how} and no output"


def _codes(codes: int | Collection[int] | None) -> Collection[int]:
    if codes is None:
        return ()
    return (codes,) if isinstance(codes, int) else codes
