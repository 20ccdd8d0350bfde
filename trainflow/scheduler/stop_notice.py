"""The notice that a chain stopped. Pure."""

from __future__ import annotations

from typing import Any

from trainflow.messages.notice import Cause, Event, Notice
from trainflow.metadata.stop_queries import FirstFailure
from trainflow.serialization.document import ChainDocument

_CHARACTERS = 500


def stop_notice(
    chain: ChainDocument, run: Any, failure: FirstFailure | None, *, last_success: int, note: str | None
) -> Notice:
    """Tell that `run` (dag_id, run_id, number) failed. Told once for each task since the last run that succeeded:
    whoever starts a stopped chain again and again has heard of it."""
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


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]}…"
