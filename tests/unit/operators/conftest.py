"""A fake attempt that remembers what it was told, a project in a temporary folder, and daily Parquet partitions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.authoring.context import build_context, current_context
from trainflow.authoring.dag import DAG
from trainflow.clock import ManualClock
from trainflow.errors import DagRunAlreadyExists
from trainflow.messages.execution_api import EarlierAttempt, RunInfo, TrackingRun
from trainflow.messages.workload import DagSource
from trainflow.operators import (
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    EvaluateOperator,
    Samples,
    SplitLimits,
    TrainOperator,
)
from trainflow.settings.model import Settings, TrackingSettings
from trainflow.settings.project import project_at
from trainflow.task_signals import TaskDeferred

NOW = datetime(2013, 3, 1, 12, tzinfo=UTC)
FIRST = datetime(2013, 1, 1, tzinfo=UTC)


class FakeRuns:
    """The runs a control plane would hold: (dag, run) → state, and who triggered them."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], str] = {}
        self.parents: dict[tuple[str, str], tuple[str, ...]] = {}
        self.resets: list[str] = []

    def trigger(self, parent: tuple[str, ...], run: Any) -> None:
        key = (run.dag_id, run.run_id)
        if key in self.states and self.parents.get(key) != parent and not run.reset_dag_run:
            raise DagRunAlreadyExists(f"{key} exists", dag_id=run.dag_id, run_id=run.run_id)
        if key in self.states and run.reset_dag_run:
            self.resets.append(run.run_id)
            self.states[key] = "queued"
        self.states.setdefault(key, "queued")
        self.parents.setdefault(key, parent)


class FakeTaskInstance:
    """One attempt."""

    def __init__(
        self, project: Any, settings: Settings, clock: ManualClock, xcoms: dict[Any, Any], **facts: Any
    ) -> None:
        self.dag_id = facts.get("dag_id", "model")
        self.run_id = facts.get("run_id", "run-1")
        self.task_id = facts["task_id"]
        self.map_index = -1
        self.try_number = facts.get("try_number", 1)
        self.max_tries = facts.get("max_tries", 0)
        self.attempt_id = facts["attempt_id"]
        self.first_started_at: datetime | None = facts.get("first_started_at", NOW)
        self.first_attempt: bool = facts.get("first_attempt", False)
        self.earlier_attempts: Sequence[EarlierAttempt] = facts.get("earlier_attempts", ())
        self.reschedule_count = 0
        self.cleared_at: datetime | None = facts.get("cleared_at")
        self.log = logging.getLogger("trainflow.task")
        self.has_progressed = False
        self.source = facts.get("source", DagSource("pipelines/model.py"))
        self.other_ranks: list[Any] = []
        self.project_root = project.root
        self.home = project.home
        self.settings = settings
        self.clock = clock
        self.runs: FakeRuns = facts["runs"]
        self.terminated = False
        self.on_stop: Callable[[], None] | None = None
        self.held_stop: list[str] = []
        self.saved_rows: list[int] = []
        self.notes: list[str] = []
        self.notices: list[Any] = []
        self.progress: list[tuple[Any, ...]] = []
        self.triggered: list[Any] = []
        self.tracking = TrackingRun(None, None)
        self.on_sleep: Callable[[], None] = lambda: None
        self._xcoms = xcoms

    def hold_stop(self, on_stop: Callable[[], None] | None = None) -> None:
        self.held_stop.append("hold")
        self.on_stop = on_stop

    def release_stop(self) -> None:
        self.held_stop.append("release")

    def report_saved(self, rows: int) -> None:
        self.saved_rows.append(rows)

    def sleep(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        self.on_sleep()

    def xcom_push(self, key: str, value: Any) -> None:
        self._xcoms[self.run_id, self.task_id, key] = msgspec.json.decode(msgspec.json.encode(value))

    def xcom_pull(
        self, task_ids: Any = None, dag_id: Any = None, key: str = "return_value", *args: Any, **kw: Any
    ) -> Any:
        return self._xcoms.get((kw.get("run_id") or self.run_id, task_ids, key), kw.get("default"))

    def report_progress(
        self, done: float, total: Any = None, unit: str = "rows", metrics: Any = None, note: Any = None
    ) -> None:
        self.progress.append((done, total, unit, metrics))

    def set_note(self, text: str) -> None:
        self.notes.append(text)

    def notify(self, notice: Any) -> None:
        self.notices.append(notice)

    def trigger_dag_run(self, run: Any, now: bool = False) -> None:
        self.triggered.append((run, now))
        if now:
            self.runs.trigger((self.dag_id, self.run_id, self.task_id), run)

    def get_dag_run_state(self, dag_id: str, run_id: str) -> str | None:
        return self.runs.states.get((dag_id, run_id))

    def get_tracking_run(self) -> TrackingRun:
        return self.tracking


class Lab:
    """A project, its clock, its XComs; runs single attempts of tasks."""

    def __init__(self, root: Path) -> None:
        (root / "configs").mkdir(parents=True)
        (root / "configs" / "trainflow.toml").write_text("")
        self.root = root
        self.project = project_at(root)
        self.settings = Settings(tracking=TrackingSettings(enabled=False))
        self.clock = ManualClock(NOW)
        self.xcoms: dict[Any, Any] = {}
        self.runs = FakeRuns()
        self.attempts = 0
        self.samples = Samples(
            path="data/date={start:%Y-%m-%d}/", length_seconds=86400, start=FIRST, end=FIRST + timedelta(days=31)
        )

    def write_day(self, number: int, rows: int = 10, marker: bool = True, start: int | None = None) -> Path:
        """Partition `number` (0: the first of January) with one row a second."""
        folder = self.root / "data" / f"date={FIRST + timedelta(days=number):%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        first = number * 1000 if start is None else start
        table = pa.table({"id": pa.array(range(first, first + rows), pa.int64()), "y": [float(number)] * rows})
        pq.write_table(table, folder / "part-0.parquet")
        if marker:
            (folder / "_SUCCESS").touch()
        return folder

    def attempt(self, task: Any, **facts: Any) -> FakeTaskInstance:
        """A new attempt of a task."""
        self.attempts += 1
        facts = {"attempt_id": f"{self.attempts:026d}", "task_id": task.task_id, "runs": self.runs, **facts}
        return FakeTaskInstance(self.project, self.settings, self.clock, self.xcoms, **facts)

    def run(self, build: Callable[[], Any], task_id: str, *, ti: FakeTaskInstance | None = None, **facts: Any) -> Any:
        """Run one attempt of `task_id` of the DAG that `build` makes, as an attempt's process does: the DAG is made
        anew, fields are rendered, the result is pushed. Returns what execute returned; raises what it raised."""
        task = build().get_task(task_id)
        ti = ti or self.attempt(task, **facts)
        self.ti = ti
        conf = facts.get("conf", {})
        run = RunInfo(dag_id=ti.dag_id, run_id=ti.run_id, run_type="manual", conf=conf, queued_at=NOW)
        context = build_context(task, ti, run, params=task.resolve_params(conf))
        with current_context(context):
            task.render_template_fields(context)
            resume = facts.get("event")
            result = task.execute(context) if resume is None else task.execute_complete(context, event=resume)
        if result is not None:
            ti.xcom_push("return_value", result)
        return result

    def deferral(self, build: Callable[[], Any], task_id: str, **facts: Any) -> TaskDeferred:
        """The deferral that an attempt ends with."""
        with pytest.raises(TaskDeferred) as caught:
            self.run(build, task_id, **facts)
        return caught.value


@pytest.fixture
def until_gone() -> Callable[[int], bool]:
    """Whether a process is gone, or goes soon: one that was killed and has no parent takes a moment."""

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def gone(pid: int) -> bool:
        return any(not alive(pid) or threading.Event().wait(0.01) for _ in range(20_000))

    return gone


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "project")


@pytest.fixture
def dag() -> Callable[..., Callable[[], DAG]]:
    """`dag(lambda: SomeOperator(...))` → a function that builds a DAG with what the lambda makes."""

    def of(make: Callable[[], Any], dag_id: str = "model", **options: Any) -> Callable[[], DAG]:
        def build() -> DAG:
            with DAG(dag_id, **options) as made:
                make()
            return made

        return build

    return of


@pytest.fixture
def training(lab: Any) -> Callable[..., Any]:
    """`training(function, **options of TrainOperator)` → builds a DAG; checkpoint and samples have run."""
    lab.write_day(0)
    lab.write_day(1)

    def make(function: Any = None, *, commit: Any = None, evaluate: Any = None, dag: Any = None, **options: Any) -> Any:
        def build() -> DAG:
            with DAG("model", **(dag or {})) as made:
                head = CheckpointOperator(store=lab.store if hasattr(lab, "store") else None).output
                split = DataCheckerOperator(
                    samples=lab.samples, limits=SplitLimits(partitions=1), checkpoint=head
                ).output
                given = {"function": function} if function is not None else {}
                trained = TrainOperator(checkpoint=head, split=split, **given, **options).output
                evaluated = None
                if evaluate is not None:
                    evaluated = EvaluateOperator(function=evaluate, checkpoint=head, split=split).output
                CommitCheckpointOperator(
                    checkpoint=head, split=split, trained=trained, evaluated=evaluated, **(commit or {})
                )
            return made

        lab.run(build, "checkpoint")
        lab.run(build, "samples")
        return build

    return make
