"""How a supervisor reports the end of its attempt: what is said instead where the server cannot take it."""

from __future__ import annotations

import pytest

from trainflow.execution.remote_attempt import AttemptSession
from trainflow.messages.execution_api import (
    OUTCOME_REFUSED,
    AttemptFailure,
    Done,
    Failed,
    Outcome,
    OutcomeState,
    Refused,
    Reply,
    XComItem,
)
from trainflow.messages.workload import AttemptKey

KEY = AttemptKey("a1")


class _Client:
    """Gives these replies, one after the other, and remembers what was reported."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.reported: list[Outcome] = []

    def handle(self, outcome: Outcome) -> Reply:
        self.reported.append(outcome)
        return self.replies.pop(0)


def report(client: _Client, outcome: Outcome) -> Reply:
    session = AttemptSession(client, KEY, heartbeat_seconds=1.0, on_refused=lambda _reason: None)  # type: ignore[arg-type]
    return session.handle(outcome)


@pytest.mark.parametrize("error", ["NotUnderstood", "TooLarge", "DataError", "ProtocolVersion", "NotFound"])
def test_outcome_that_is_not_taken_ends_as_failed(error: str) -> None:
    client = _Client(Failed(error, "no"), Done())
    outcome = Outcome(KEY, OutcomeState.SUCCESS, xcoms=[XComItem("x", b"1" * 9_000)], saved_rows=3)  # type: ignore[arg-type]
    why = "the API server does not take its outcome (success): no"
    assert report(client, outcome) == Failed(OUTCOME_REFUSED, why)
    problem = AttemptFailure(why, kind=error)
    assert client.reported == [outcome, Outcome(KEY, OutcomeState.FAILED, problem=problem, saved_rows=3)]


def test_failure_that_is_not_to_be_tried_again_stays_one() -> None:
    client = _Client(Failed("TooLarge", "no"), Done())
    report(client, Outcome(KEY, OutcomeState.FAILED, problem=AttemptFailure("x", "y" * 9_000, retryable=False)))
    assert client.reported[1].problem is not None
    assert not client.reported[1].problem.retryable


@pytest.mark.parametrize("reply", [Done(), Refused("stale"), Failed(OUTCOME_REFUSED, "kept as failed")])
def test_outcome_that_was_decided_is_reported_once(reply: Reply) -> None:
    client = _Client(reply)
    assert report(client, Outcome(KEY, OutcomeState.SUCCESS)) == reply
    assert len(client.reported) == 1


@pytest.mark.parametrize("reply", [Refused("stale"), Failed("NotFound", "no")])
def test_server_that_takes_no_outcome_at_all_has_the_last_word(reply: Reply) -> None:
    client = _Client(Failed("NotFound", "no"), reply)
    assert report(client, Outcome(KEY, OutcomeState.SUCCESS)) == reply
    assert len(client.reported) == 2
