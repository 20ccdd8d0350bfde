"""The notice that a chain stopped, or that a run failed which its chain does not need any more. Pure."""

from __future__ import annotations

from typing import Any

from trainflow.messages.notice import Cause, Event, Notice
from trainflow.metadata.failure_queries import FirstFailure
from trainflow.serialization.document import ChainDocument

_CHARACTERS = 500


def stop_notice(
    chain: ChainDocument, run: Any, failure: FirstFailure | None, *, last_success: int, note: str | None
) -> Notice:
    """Tell that `run` (dag_id, run_id, number, released_at) failed. Told once for each task since the last run that
    succeeded: a person who starts a stopped chain again and again has heard of it."""
    if run.released_at is not None:
        return _tail_notice(chain, run, failure)
    told: dict[str, Any] = (failure.told if failure else None) or {}
    task_id = failure.task_id if failure else None
    why = told.get("sentence") or (f"task '{task_id}': {failure.problem}" if failure else note or "the run failed")
    return Notice(
        event=Event.STOPPED,
        key=str(told.get("key") or f"{run.dag_id}:{last_success}:{task_id}"),
        cause=Cause(told.get("cause") or Cause.TASK),
        sentence=f"{run.dag_id}: the chain stopped in run {run.number}: {_short(why)}",
        pipeline=chain.pipeline,
        stage=chain.stage,
        branch=chain.branch,
        dag_id=run.dag_id,
        run_id=run.run_id,
        facts={"task_id": task_id, **told.get("facts", {})},
    )


def _tail_notice(chain: ChainDocument, run: Any, failure: FirstFailure | None) -> Notice:
    """The chain goes on; what was to be made of the checkpoint is not there."""
    why = f"task '{failure.task_id}' failed: {failure.problem}" if failure else "it failed"
    return Notice(
        event=Event.AFTER_COMMIT_FAILED,
        key=run.run_id,
        sentence=f"{run.dag_id}: after the commit of run {run.number}: {_short(why)}; the chain goes on",
        pipeline=chain.pipeline,
        stage=chain.stage,
        branch=chain.branch,
        dag_id=run.dag_id,
        run_id=run.run_id,
        facts={"task_id": failure.task_id if failure else None},
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]}…"
