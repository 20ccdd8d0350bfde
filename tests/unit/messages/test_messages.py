"""Every message arrives as it was sent, and what is no message is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from trainflow.messages import forkserver, triggerer
from trainflow.messages.execution_api import (
    AttemptFailure,
    DagRunInfo,
    Deferral,
    Done,
    Failed,
    GetDagRunState,
    GetTrackingRun,
    GetXCom,
    Outcome,
    OutcomeState,
    Progress,
    Refused,
    Reply,
    Request,
    RowsSaved,
    RunInfo,
    Start,
    Started,
    TrackingRun,
    TriggeredRun,
    TriggerRun,
    XComItem,
    XComValues,
)
from trainflow.messages.workload import (
    AttemptKey,
    DagSource,
    ExecuteTask,
    ParsedDag,
    ParseFile,
    ParseProblem,
    ParseResult,
)

KEY = AttemptKey("01hqattempt", 2)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SOURCE = DagSource("pipelines/ä b.yaml", {"params.x": "1"})
RUN = TriggeredRun("next", "r1", {"a": [1, None, "ü"]}, MOMENT, MOMENT, True, True, True, "why")
WORKLOAD = ExecuteTask(KEY, 7, "d", "r", "t", -1, SOURCE, "/p", "/p/.trainflow", "/log", "gpu", 5, True)
PARSE = ParseFile(SOURCE, "/p", "/p/.trainflow")
RAW = msgspec.Raw(b'{"n":1,"t":"\\u0000 \\ud83d\\ude00"}')

REQUESTS: list[Any] = [
    Start(KEY, 12, 345.5, "host"),
    GetXCom(KEY, "d", "r", ["a", "b"], "return_value", None, True),
    GetXCom(KEY, "d", "r", None, "k"),
    TriggerRun(KEY, RUN),
    GetDagRunState(KEY, "d", "r"),
    GetTrackingRun(KEY),
    Progress(KEY, 1.5, 3.0, "rows", {"loss": 0.5, "lost": None}, "half"),
    RowsSaved(KEY, 5),
    Outcome(KEY, OutcomeState.PREEMPTED),
    Outcome(KEY, OutcomeState.PART_LOST),
    Outcome(
        KEY,
        OutcomeState.DEFERRED,
        [XComItem("k", RAW)],
        [RUN],
        AttemptFailure("m", "t", "k", False),
        Deferral("m.C", {"x": [1]}, "execute_complete", {"y": None}, 60.0, MOMENT),
        MOMENT,
        "note",
    ),
]
REPLIES: list[Any] = [
    Started(
        RunInfo("d", "r", "manual", {"a": 1}, MOMENT, MOMENT, MOMENT, MOMENT, "n"), 2, 3, "m", {"event": 1}, MOMENT, 4
    ),
    Refused("stale"),
    XComValues({"a": RAW}),
    DagRunInfo(None),
    TrackingRun("http://x", "1"),
    Done(),
    Failed("DagNotFound", "no"),
]
OTHERS: list[tuple[Any, Any]] = [
    *((forkserver.ToWorker, m) for m in (forkserver.Launch(WORKLOAD, warm_up=False), forkserver.Parse(PARSE))),
    *(
        (forkserver.FromWorker, m)
        for m in (
            forkserver.Launched(KEY, 5),
            forkserver.Threaded("pipelines/p.py", "it starts 1 thread", KEY),
            forkserver.Stale("x.py", KEY),
            forkserver.Stale("x.py"),
            forkserver.ChildEnded(5, 0, left=[6]),
            forkserver.ChildEnded(5, None, 9),
        )
    ),
    *(
        (triggerer.ToLoop, m)
        for m in (
            triggerer.Watch(1, "m.C", '{"a":{"b":1}}'),
            triggerer.Unwatch(1, True),
            triggerer.DagRunAnswer(1, "success"),
        )
    ),
    *(
        (triggerer.FromLoop, m)
        for m in (
            triggerer.Fired(1, msgspec.Raw(b'{"x":null}')),
            triggerer.Crashed(1, "m", "t"),
            triggerer.LoopAlive(),
            triggerer.AskDagRun(1, "d", "r"),
        )
    ),
    (
        ParseResult,
        ParseResult([ParsedDag("d", RAW)], ParseProblem("m", "t", "p", 1, 2), ["/p/a.py"]),
    ),
]


@pytest.mark.parametrize(
    ("kind", "message"),
    [*((Request, m) for m in REQUESTS), *((Reply, m) for m in REPLIES), *OTHERS],
    ids=lambda value: type(value).__name__ if isinstance(value, msgspec.Struct) else "",
)
def test_message_round_trip_is_equal(kind: Any, message: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message), type=kind) == message


def test_messages_every_request_and_reply_is_tried() -> None:
    for union, examples in ((Request, REQUESTS), (Reply, REPLIES)):
        assert {type(example) for example in examples} == set(union.__args__)


def test_xcom_is_not_encoded_again() -> None:
    """The worker encodes once; what passes it on copies bytes."""
    sent = msgspec.json.encode(Outcome(KEY, OutcomeState.SUCCESS, [XComItem("k", RAW)]))
    assert bytes(RAW) in sent


def test_number_that_json_does_not_have_arrives_as_none() -> None:
    sent = msgspec.json.encode(Progress(KEY, 1.0, metrics={"loss": float("nan"), "max": float("inf")}))
    received = msgspec.json.decode(sent, type=Request)
    assert isinstance(received, Progress)
    assert received.metrics == {"loss": None, "max": None}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95",  # a pickle
        b"{}",
        b'{"type":"start"}',
        b'{"type":"nothing we know","key":{"attempt_id":"x"}}',
        b'{"type":"start","key":{"attempt_id":5},"pid":1,"process_started":0,"hostname":"h"}',
    ],
)
def test_message_of_unknown_shape_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(data, type=Request)


def test_fields_that_later_version_adds_are_passed_over() -> None:
    """An attempt may outlive the engine that started it, and report to a newer one; or the other way round."""
    data = msgspec.json.encode({**msgspec.to_builtins(REQUESTS[0]), "new": 1})
    assert msgspec.json.decode(data, type=Request) == REQUESTS[0]
