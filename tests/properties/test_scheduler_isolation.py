"""Whatever is in a document, a run, a trigger or an outcome: nothing of it ends the engine, and good work goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, type_coerce, update

from tests.conftest import server_of
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.messages.execution_api import (
    LONGEST_WAIT_SECONDS,
    AttemptFailure,
    Deferral,
    Failed,
    Outcome,
    OutcomeState,
    Refused,
    Reply,
    TriggeredRun,
    XComItem,
)
from trainflow.messages.triggerer import AskDagRun, Crashed, Fired, FromLoop, ToLoop, Watch
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.column_types import LongText
from trainflow.metadata.queries import run_queries
from trainflow.metadata.queries.attempt_queries import ATTEMPT
from trainflow.metadata.queries.dag_queries import DAG, VERSION
from trainflow.metadata.queries.run_queries import RUN
from trainflow.metadata.queries.task_queries import TASK
from trainflow.metadata.queries.trigger_queries import TRIGGER
from trainflow.metadata.queries.xcom_queries import XCOM
from trainflow.serialization.document import RetryDocument
from trainflow.states import FINISHED, RUN_FINISHED, DagRunState, TaskInstanceState, TriggerRule
from trainflow.triggerer.loop_process import Loop
from trainflow.triggerer.triggerer import Triggerer

if TYPE_CHECKING:
    from trainflow.executors.reactor import Reactor

_numbers = itertools.count()

#: what is at the edge of what some database, clock or message can hold
integers = st.one_of(st.integers(), st.sampled_from([2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 2**64, 2**200]))
floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.sampled_from(
        ["", "\x00", "a\x00b", "loss", "loss ", "LOSS", "a" * 300, "😀" * 260, "ß", "'; --", "%s", "\u202e"]
    ),
)
jsons = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, floats, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
raw_jsons = st.one_of(
    jsons.map(msgspec.json.encode),
    st.sampled_from([b"[" * 300 + b"]" * 300, b"[" * 900 + b"]" * 900, b"1e999", b'"\\u0000"']),
).map(msgspec.Raw)

tasks = st.builds(
    dict,
    trigger_rule=st.sampled_from(TriggerRule),
    retry=st.builds(
        RetryDocument,
        retries=integers,
        delay_seconds=floats,
        multiplier=floats,
        max_delay_seconds=st.none() | floats,
    ),
    pool=texts,
    pool_slots=integers,
    priority_weight=integers,
    queue=texts,
    depends_on_past=st.booleans(),
    execution_timeout_seconds=st.none() | floats,
    max_active_tis_per_dag=st.none() | integers,
    max_active_tis_per_dagrun=st.none() | integers,
    is_setup=st.booleans(),
    is_teardown=st.booleans(),
)
dags = st.builds(
    dict,
    dagrun_timeout_seconds=st.none() | floats | st.just(9_999_999 * 86_400.0),
    max_active_tasks=integers,
    fail_fast=st.booleans(),
)
outcomes = st.builds(
    dict,
    state=st.sampled_from(OutcomeState),
    xcoms=st.lists(st.builds(XComItem, texts, raw_jsons), max_size=3),
    triggered_runs=st.lists(
        st.builds(
            TriggeredRun,
            st.sampled_from(["good", "fuzzed", "nowhere"]) | texts,
            texts,
            conf=st.dictionaries(texts, jsons, max_size=2),
            logical_date=st.none() | st.datetimes(),
            run_after=st.none() | st.datetimes(),
            note=st.none() | texts,
        ),
        max_size=2,
    ),
    problem=st.none() | st.builds(AttemptFailure, texts, texts, texts, st.booleans()),
    deferral=st.none()
    | st.builds(
        Deferral, texts, st.dictionaries(texts, jsons, max_size=2), texts, st.dictionaries(texts, jsons, max_size=2)
    ),
    reschedule_at=st.none() | st.datetimes(),
    reschedule_seconds=st.none() | st.floats(0, LONGEST_WAIT_SECONDS),
    note=st.none() | texts,
    saved_rows=st.none() | integers,
)


class LoneTriggerer(Triggerer):
    """A triggerer whose event loop is the test."""

    def _start_loop(self) -> Loop:
        self._told: list[Watch] = []
        return Loop(self._hear_told)

    def _hear_told(self, payload: bytes) -> None:
        """What the event loop is told."""
        told = msgspec.json.decode(payload, type=ToLoop)
        if isinstance(told, Watch):
            self._told.append(told)

    def take_watched(self) -> list[int]:
        """The waits it was told to watch since the last time."""
        told, self._told = self._told, []
        return [each.trigger_id for each in told]

    def hear(self, message: FromLoop) -> None:
        """The event loop says something."""
        self._heard(self._loops[0], msgspec.json.encode(message))


class Shared:
    """One control plane for all examples: what one of them leaves behind, the next ones have to live with."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self._context = control_plane(folder, database_url=url)
        self.plane: ControlPlane = self._context.__enter__()
        self.plane.add_dag("good", empty_task("t"))
        self.triggerer = LoneTriggerer(
            self.plane.database,
            cast("Reactor", None),
            self.plane.service,
            clock=self.plane.clock,
            project=self.plane.project,
            settings=self.plane.settings,
            service_id=self.plane.service_id,
            leases=self.plane.leases,
            on_change=self.plane.scheduler.notice,
        )

    def close(self) -> None:
        self._context.__exit__(None, None, None)

    def tick(self) -> list[ExecuteTask]:
        """Two ticks of an engine that has just been started: it has no hints, and looks at everything."""
        self.plane.versions._documents.clear()
        self.plane.versions._sources.clear()
        self.plane.scheduler.sweep()
        return [*self.plane.tick(), *self.plane.tick()]

    def assert_good_work_goes_on(self) -> None:
        """A run that is asked for now is started, executed and ended, beside whatever is there."""
        run = self.plane.add_run("good", f"g{next(_numbers)}")
        workloads = [each for each in self.tick() if each.dag_id == "good"]
        for workload in workloads:
            self.plane.play(workload)
        self.tick()
        assert self.plane.run(run).state == DagRunState.SUCCESS, self.plane.states(run)

    def attempt(self) -> ExecuteTask:
        """A fresh attempt of a task called `t` that has claimed itself."""
        self.plane.add_dag("fuzzed", empty_task("t"), max_active_runs=1_000_000)
        run = self.plane.add_run("fuzzed", f"f{next(_numbers)}")
        [workload] = [each for each in self.tick() if each.run_id == self.plane.run(run).run_id]
        self.plane.claim(workload)
        return workload

    def discard(self) -> None:
        """End what is left: examples must not fill the slots for each other."""
        self.plane.executor.alive.clear()
        with self.plane.database.transaction() as connection:
            for table in (XCOM, TRIGGER, ATTEMPT, TASK, RUN):
                connection.execute(delete(table))


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    server = server_of(request, request.param)
    made = Shared(tmp_path_factory.mktemp("isolation"), None if server is None else server.clean_database())
    yield made
    made.close()


@pytest.fixture
def examples(shared: Shared) -> int:
    """SQLite is quick; what a server refuses is found by fewer."""
    return 80 if shared.plane.database.is_sqlite else 15


def reply_to(plane: ControlPlane, outcome: Outcome) -> Reply:
    """The answer to an outcome that comes over the wire."""
    return plane.service.handle(msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome))


def test_documents_of_any_content_end_no_tick(shared: Shared, examples: int) -> None:
    @settings(max_examples=examples)
    @given(dags, st.lists(tasks, min_size=1, max_size=3))
    def check(dag: dict[str, Any], several: list[dict[str, Any]]) -> None:
        shared.discard()
        plane = shared.plane
        described = [empty_task(f"t{number}", **task) for number, task in enumerate(several)]
        plane.add_dag("fuzzed", *described, **dag, max_active_runs=1000)
        run = plane.add_run("fuzzed", f"f{next(_numbers)}")
        for _ in range(2):
            for workload in shared.tick():
                if workload.dag_id == "fuzzed":
                    plane.play(workload, OutcomeState.FAILED)
        row = plane.run(run)
        if row.state == DagRunState.FAILED and row.note is not None:
            assert all(TaskInstanceState(state or "") in FINISHED for state in plane.states(run).values() if state)
        shared.assert_good_work_goes_on()

    check()


def test_document_that_is_no_document_any_more_ends_no_tick(shared: Shared, examples: int) -> None:
    @settings(max_examples=examples // 2)
    @given(st.one_of(texts.filter(lambda text: "\x00" not in text), st.sampled_from(["[" * 5000, "{}", "null"])))
    def check(content: str) -> None:
        shared.discard()
        plane = shared.plane
        workload = shared.attempt()
        plane.add_run("fuzzed", f"f{next(_numbers)}")
        with plane.database.transaction() as connection:
            connection.execute(update(VERSION).where(VERSION.c.dag_id == "fuzzed").values(document=content))
        shared.tick()
        plane.versions._documents.clear()
        plane.report(workload, OutcomeState.FAILED)
        shared.tick()
        shared.assert_good_work_goes_on()
        with plane.database.transaction() as connection:
            runs = select(RUN.c.state).where(RUN.c.dag_id == "fuzzed")
            assert {DagRunState(state) for state in connection.execute(runs).scalars()} <= RUN_FINISHED
        shared.discard()
        with plane.database.transaction() as connection:
            connection.execute(update(DAG).where(DAG.c.dag_id == "fuzzed").values(version_id=None))
            connection.execute(delete(VERSION).where(VERSION.c.dag_id == "fuzzed"))

    check()


def test_outcomes_of_any_content_end_their_attempt_alone(shared: Shared, examples: int) -> None:
    @settings(max_examples=examples * 2)
    @given(outcomes)
    def check(outcome: dict[str, Any]) -> None:
        shared.discard()
        if outcome["state"] is OutcomeState.DEFERRED and outcome["deferral"] is None:
            outcome["deferral"] = Deferral("m.C", {}, "method")
        plane = shared.plane
        workload = shared.attempt()
        plane.executor.alive.discard(workload.key)
        reply = reply_to(plane, Outcome(workload.key, **outcome))
        assert not isinstance(reply, Refused)
        task = plane.task(_run_of(plane, workload), "t")
        assert task.state not in (TaskInstanceState.RUNNING, TaskInstanceState.QUEUED)
        if isinstance(reply, Failed):
            assert task.state == TaskInstanceState.FAILED
            assert task.problem == reply.message
            # nothing of a refused outcome is kept
            with plane.database.reading() as connection:
                assert connection.execute(select(XCOM).where(XCOM.c.dag_run_id == task.dag_run_id)).all() == []
        shared.tick()
        shared.assert_good_work_goes_on()

    check()


def test_triggers_and_events_of_any_content_end_their_task_alone(shared: Shared, examples: int) -> None:
    @settings(max_examples=examples)
    @given(
        st.dictionaries(texts, jsons, max_size=2),
        st.none() | st.sampled_from(["no json", "[" * 5000, "7", ""]),
        raw_jsons,
        texts,
    )
    def check(kwargs: dict[str, Any], damaged: str | None, payload: msgspec.Raw, message: str) -> None:
        shared.discard()
        plane = shared.plane
        waits = []
        for _ in range(2):
            workload = shared.attempt()
            plane.report(workload, OutcomeState.DEFERRED, deferral=Deferral("m.C", kwargs, "method", kwargs))
            waits.append(_run_of(plane, workload))
        if any(plane.task(run, "t").state != TaskInstanceState.DEFERRED for run in waits):
            shared.discard()  # the database refuses what they wait for
            return
        if damaged is not None:
            with plane.database.transaction() as connection:
                connection.execute(update(TRIGGER).values(kwargs=type_coerce(damaged, LongText())))
                first = TASK.c.dag_run_id == waits[0]
                connection.execute(update(TASK).where(first).values(next_kwargs=type_coerce(damaged, LongText())))
        shared.triggerer.notice()
        shared.triggerer.tick()
        first_id, second_id = shared.triggerer.take_watched()
        shared.triggerer.hear(Fired(first_id, payload))
        shared.triggerer.hear(Crashed(second_id, message))
        shared.triggerer.hear(AskDagRun(1, message, message))
        for run in waits:
            assert plane.task(run, "t").state == TaskInstanceState.SCHEDULED
        for workload in [each for each in shared.tick() if each.dag_id == "fuzzed"]:
            plane.play(workload)
        shared.assert_good_work_goes_on()

    check()


def _run_of(plane: ControlPlane, workload: ExecuteTask) -> int:
    with plane.database.reading() as connection:
        found = run_queries.find(connection, workload.dag_id, workload.run_id)
    assert found is not None
    return int(found.id)
