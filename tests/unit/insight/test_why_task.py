from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from trainflow.insight.why_task import TaskWaitFacts, explain_wait, handed_to
from trainflow.serialization.document import TaskDocument
from trainflow.states import DagRunState, TriggerRule
from trainflow.states import TaskInstanceState as T

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
AROUND = TaskWaitFacts(
    dag_id="d",
    engine_alive=True,
    paused=False,
    max_active_runs=1,
    running=1,
    run_state=DagRunState.RUNNING,
    run_after=NOW,
    states={"a": T.RUNNING, "b": T.SUCCESS},
)
FIELDS = ("queued_at", "retry_at", "problem", "note")


def why(
    state: str | None, *, upstream: tuple[str, ...] = (), around: dict[str, Any] | None = None, **row: Any
) -> str | None:
    rule = row.pop("trigger_rule", TriggerRule.ALL_SUCCESS)
    past = row.pop("depends_on_past", False)
    task = TaskDocument("x", "Op", upstream=list(upstream), trigger_rule=rule, depends_on_past=past)
    values = {**dict.fromkeys(FIELDS), "executor": "local", "state": state, "failures": 0, "max_tries": 2, **row}
    return explain_wait(task, SimpleNamespace(**values), msgspec.structs.replace(AROUND, **(around or {})), NOW)


NO_ENGINE = {"engine_alive": False}
QUEUED_RUN = {"run_state": DagRunState.QUEUED}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"state": None, "upstream": ("a", "b")}, "waits for a (running)"),
        ({"state": None, "upstream": ("c",)}, "waits for c (not scheduled yet)"),
        (
            {"state": None, "upstream": ("a",), "trigger_rule": TriggerRule.ALL_DONE},
            "waits for a (running) (trigger rule all_done)",
        ),
        (
            {"state": None, "upstream": ("b",), "depends_on_past": True},
            "waits for the same task of the run before (depends_on_past)",
        ),
        ({"state": None, "upstream": ("b",)}, "is about to be scheduled"),
        ({"state": None, "around": {"run_state": DagRunState.FAILED}}, None),
        (
            {"state": None, "around": QUEUED_RUN},
            "its run is queued: 1 of 1 runs are running (max_active_runs)",
        ),
        (
            {"state": None, "around": {**QUEUED_RUN, "running": 0, "run_after": LATER}},
            "its run starts at 2026-01-02 03:05:05 UTC",
        ),
        ({"state": None, "around": {**QUEUED_RUN, "running": 0}}, "its run is about to start"),
        (
            {"state": None, "around": {**QUEUED_RUN, "running": 0, "paused": True}},
            "the DAG is paused: 'trainflow dags unpause d' lets it go on",
        ),
        ({"state": T.SCHEDULED, "around": {"refused": "pool 'gpu' is full"}}, "pool 'gpu' is full"),
        ({"state": T.SCHEDULED}, "is about to be handed to the executor"),
        (
            {"state": T.SCHEDULED, "around": NO_ENGINE},
            "no engine is alive: 'trainflow start PIPELINE' or 'trainflow standalone' goes on with it",
        ),
        (
            {"state": T.QUEUED, "queued_at": NOW},
            "was handed to executor 'local' at 2026-01-02 03:04:05 UTC, no worker has begun it for 0 s",
        ),
        (
            {"state": T.QUEUED, "queued_at": NOW - timedelta(seconds=90), "around": {"listened_queue": "gpu"}},
            "was handed to executor 'local' at 2026-01-02 03:02:35 UTC, no worker has begun it for 90 s; "
            "is a worker listening on queue 'gpu'?",
        ),
        (
            {"state": T.UP_FOR_RETRY, "retry_at": LATER, "failures": 1, "problem": "no disk"},
            "is tried again at 2026-01-02 03:05:05 UTC (try 2 of 3) after: no disk",
        ),
        (
            {"state": T.UP_FOR_RETRY, "retry_at": NOW, "failures": 1},
            "is tried again at once (try 2 of 3) after: it did not say why",
        ),
        (
            {"state": T.UP_FOR_RESCHEDULE, "retry_at": LATER, "note": "waits for b"},
            "looks again at 2026-01-02 03:05:05 UTC: waits for b",
        ),
        ({"state": T.DEFERRED, "note": "waits for 2013-02-01"}, "waits for 2013-02-01"),
        (
            {"state": T.DEFERRED, "around": {"trigger_class": "x.y.Partition", "deadline": LATER}},
            "waits in the triggerer for Partition, until 2026-01-02 03:05:05 UTC at the longest",
        ),
        (
            {"state": T.DEFERRED, "note": "waits", "around": {"triggerer_alive": False}},
            "waits; no triggerer is alive to watch it: start one with 'trainflow triggerer'",
        ),
        (
            {"state": T.DEFERRED, "note": "waits", "around": NO_ENGINE},
            "waits; no engine is alive: 'trainflow start PIPELINE' or 'trainflow standalone' goes on with it",
        ),
        (
            {"state": T.UPSTREAM_FAILED, "upstream": ("a", "b"), "around": {"states": {"a": T.FAILED, "b": T.SUCCESS}}},
            "will not run: a (failed)",
        ),
        ({"state": T.UPSTREAM_FAILED}, "will not run: something before it failed"),
        ({"state": T.RUNNING}, None),
        ({"state": T.SUCCESS}, None),
        ({"state": T.FAILED, "problem": "x"}, None),
    ],
)
def test_explain_task_returns_sentence(given: dict[str, Any], sentence: str | None) -> None:
    assert why(**given) == sentence


def test_task_that_was_handed_over_says_what_its_executor_says_of_it() -> None:
    said = handed_to("gpu", NOW, None, "pod p waits: no node takes it (0/3 nodes are available)", LATER)
    assert said == (
        "was handed to executor 'gpu' at 2026-01-02 03:04:05 UTC, no worker has begun it for 60 s: "
        "pod p waits: no node takes it (0/3 nodes are available)"
    )
