"""Snapshots of a DAG, its runs and tasks, for tests of what is said about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from trainflow.insight.snapshot import DagSnapshot, EngineSnapshot, RunSnapshot, TaskSnapshot

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


ALIVE = EngineSnapshot(True, 42, "here", NOW, True)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def run(*tasks: TaskSnapshot, number: int = 5, state: str = "running", **facts: Any) -> RunSnapshot:
    when = facts.pop("run_after", NOW)
    return RunSnapshot(run_id=f"run-{number}", number=number, state=state, run_after=when, tasks=[*tasks], **facts)


def task(task_id: str, state: str | None, **facts: Any) -> TaskSnapshot:
    return TaskSnapshot(task_id=task_id, role=facts.pop("role", task_id), state=state, **facts)


def snapshot(**facts: Any) -> DagSnapshot:
    return DagSnapshot(dag_id="days", path="pipelines/days.yaml", **{"engine": ALIVE, **facts})


def training(progress: dict[str, Any] | None = None, **facts: Any) -> RunSnapshot:
    return run(task("train", "running", started_at=at(-90), progress=progress, **facts))
