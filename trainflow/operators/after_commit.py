"""AfterCommitOperator: work on the new checkpoint that the next run need not wait for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainflow.authoring.context import Context
from trainflow.errors import FailException, SkipException, TaskError
from trainflow.operators import function_reference
from trainflow.operators.bash import failure_message
from trainflow.operators.chain.chain_operator import ChainOperator
from trainflow.operators.chain.parent import attempt_scratch, fetch_committed
from trainflow.operators.process_group import ProcessGroup
from trainflow.operators.training.training_context import ParentCheckpoint
from trainflow.states import AFTER_COMMIT

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance


@dataclass(frozen=True)
class AfterCommitContext:
    """What the function is given: the checkpoint that this run committed, whatever was committed since.

    `checkpoint.path` is a local folder with its files, which must not be written into.
    """

    checkpoint: ParentCheckpoint
    #: where the files are in the store
    uri: str
    params: dict[str, Any]
    run_id: str
    attempt_id: str
    logger: Logger
    project_root: Path


AfterCommitFunction = Callable[[AfterCommitContext], Any]


class AfterCommitOperator(ChainOperator):
    """Export, publish or report on the checkpoint that `committed` (the output of a CommitCheckpointOperator) is.

    The next run of the DAG may start before this task has ended: once all of a run but such tasks, and what waits for
    them, is done, it no longer counts against `max_active_runs`. At most `trainflow.states.MOST_AHEAD` later runs begin
    before it has ended, and the commit's retention keeps the checkpoint it works on that long. A task that fails makes
    its run fail and stops no chain.

    `function` is a callable or `"module.path:name"` and is called with an AfterCommitContext; `command` is a program
    with its arguments, which runs in the project's folder and finds the checkpoint in the variables
    TRAINFLOW_CHECKPOINT (the local folder), TRAINFLOW_CHECKPOINT_ID, _NUMBER, _WATERMARK and _URI. When a gate had
    the run skip its split or rewind the chain, nothing was committed: the task ends skipped.

    Returns what the function returns.
    """

    template_fields: ClassVar[Sequence[str]] = ("checkpoint", "committed")
    role = AFTER_COMMIT

    def __init__(
        self,
        *,
        function: AfterCommitFunction | str | None = None,
        command: Sequence[str] | None = None,
        checkpoint: Any,
        committed: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(checkpoint=checkpoint, **kwargs)
        function_reference.check_either(self.task_id, function, command)
        self.function = function
        self.command = None if command is None else [str(part) for part in command]
        self.committed = committed
        self._group: ProcessGroup | None = None

    def warm_up(self, project_root: Path) -> None:
        super().warm_up(project_root)
        if self.function is not None:
            function_reference.resolve(self.function, project_root)

    def execute(self, context: Context) -> Any:
        """Returns what the function returned; None for a command."""
        ti = context["ti"]
        if self.committed is None:
            raise SkipException("nothing was committed")
        if not isinstance(self.committed, dict) or "id" not in self.committed:
            raise FailException(
                f"task {self.task_id!r}: 'committed' is not what a CommitCheckpointOperator hands over: "
                "give it the output of that task"
            )
        head = self.head()
        found = fetch_committed(self.open_ledger(head, ti), self.committed["id"], attempt_scratch(ti), ti)
        try:
            return self._call(found, context) if self.function is not None else self._run(found, ti)
        finally:
            shutil.rmtree(attempt_scratch(ti), ignore_errors=True)

    def on_kill(self) -> None:
        if self._group is not None:
            self._group.stop()

    def _call(self, found: ParentCheckpoint, context: Context) -> Any:
        ti = context["ti"]
        assert self.function is not None
        function = function_reference.resolve_for_good(self.function, ti.project_root)
        return function(
            AfterCommitContext(
                checkpoint=found,
                uri=str(self.committed["uri"]),
                params=dict(context.get("params") or {}),
                run_id=ti.run_id,
                attempt_id=ti.attempt_id,
                logger=ti.log,
                project_root=ti.project_root,
            )
        )

    def _run(self, found: ParentCheckpoint, ti: TaskInstance) -> None:
        assert self.command is not None
        variables = {
            "TRAINFLOW_CHECKPOINT": str(found.path),
            "TRAINFLOW_CHECKPOINT_ID": found.id,
            "TRAINFLOW_CHECKPOINT_NUMBER": str(found.number),
            "TRAINFLOW_CHECKPOINT_WATERMARK": found.watermark.isoformat(),
            "TRAINFLOW_CHECKPOINT_URI": str(self.committed["uri"]),
        }
        self._group = group = ProcessGroup(
            self.command,
            cwd=ti.project_root,
            env={**os.environ, **variables},
            on_line=lambda line: ti.log.info("%s", line),
        )
        try:
            code = group.run()
        except OSError as error:
            raise TaskError(f"the command {self.command[0]!r} cannot be started: {error.strerror}") from error
        if code != 0:
            raise TaskError(failure_message(f"the command {self.command[0]!r}", code, group.tail, group.out_of_memory))
