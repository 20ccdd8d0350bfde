from __future__ import annotations

import fcntl
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from trainflow.clock import ManualClock
from trainflow.errors import ProtocolError
from trainflow.messages.frames import receive, send
from trainflow.tracking import deliverer
from trainflow.tracking.deliverer import GIVE_UP_SECONDS, DeliveryHandler, describe, serve
from trainflow.tracking.deliveries import (
    Deliver,
    Delivered,
    Delivery,
    NotDelivered,
    OpenStore,
    RunStarted,
    TrackedChain,
    TrackedRun,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DELIVERY = RunStarted(TrackedRun(TrackedChain("p"), "p", "r", AT))


class Ids(NamedTuple):
    experiment_id: str = "1"
    chain_run_id: str = "c"
    run_id: str = "r"


class Refusal(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(f"{code}\nsecond line")
        self.error_code = code


class ScriptedMirror:
    """Raises what the script says, call by call; None: works."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.calls: list[str] = []

    def apply(self, delivery: Delivery) -> Ids:
        self.calls.append("apply")
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        return Ids()

    def forget(self) -> None:
        self.calls.append("forget")


def desk_over(mirror: ScriptedMirror) -> tuple[DeliveryHandler, ManualClock]:
    clock = ManualClock(AT)
    return DeliveryHandler(lambda: mirror, clock), clock  # type: ignore[arg-type, return-value]


def test_delivery_is_answered_with_mlflows_ids() -> None:
    handler, _ = desk_over(ScriptedMirror())
    assert handler.answer(Deliver(5, DELIVERY)) == Delivered(5, "r")


def test_refusal_is_tried_once_more_without_remembered_ids() -> None:
    mirror = ScriptedMirror(Refusal("RESOURCE_DOES_NOT_EXIST"))
    handler, _ = desk_over(mirror)
    assert isinstance(handler.answer(Deliver(1, DELIVERY)), Delivered)
    assert mirror.calls == ["apply", "forget", "apply"]


@pytest.mark.parametrize(("code", "retry"), [("INVALID_PARAMETER_VALUE", False), ("RESOURCE_ALREADY_EXISTS", True)])
def test_refusal_that_stays_does_not_hold_up_others(code: str, retry: bool) -> None:
    handler, _ = desk_over(ScriptedMirror(Refusal(code), Refusal(code)))
    assert handler.answer(Deliver(1, DELIVERY)) == NotDelivered(1, f"Refusal: {code}", retry=retry)
    assert isinstance(handler.answer(Deliver(2, DELIVERY)), Delivered)


def test_deliverer_behind_unreachable_mlflow_refuses_for_a_while() -> None:
    mirror = ScriptedMirror(ConnectionError("no route"))
    handler, clock = desk_over(mirror)
    assert handler.answer(Deliver(1, DELIVERY)) == NotDelivered(1, "ConnectionError: no route")
    assert handler.answer(Deliver(2, DELIVERY)) == NotDelivered(2, "ConnectionError: no route")
    assert mirror.calls.count("apply") == 1
    clock.advance(timedelta(seconds=GIVE_UP_SECONDS))
    assert isinstance(handler.answer(Deliver(3, DELIVERY)), Delivered)


def test_deliverer_unopened_mlflow_is_opened_again_later() -> None:
    mirror, clock = ScriptedMirror(), ManualClock(AT)
    failures = [ImportError("no module named mlflow")]

    def open_it() -> ScriptedMirror:
        if failures:
            raise failures.pop()
        return mirror

    handler = DeliveryHandler(open_it, clock)  # type: ignore[arg-type]
    assert handler.answer(Deliver(1, DELIVERY)) == NotDelivered(1, "ImportError: no module named mlflow")
    clock.advance(timedelta(seconds=GIVE_UP_SECONDS))
    assert isinstance(handler.answer(Deliver(1, DELIVERY)), Delivered)


@pytest.mark.parametrize(
    "error", [Refusal("INVALID_PARAMETER_VALUE"), ValueError("no such scheme"), TypeError("x"), OSError("full")]
)
def test_deliverer_store_not_opening_is_an_outage(error: Exception) -> None:
    mirror, clock = ScriptedMirror(), ManualClock(AT)
    failures = [error]

    def open_it() -> ScriptedMirror:
        if failures:
            raise failures.pop()
        return mirror

    handler = DeliveryHandler(open_it, clock)  # type: ignore[arg-type]
    assert handler.answer(Deliver(1, DELIVERY)) == NotDelivered(1, describe(error), retry=True)
    assert handler.answer(Deliver(2, DELIVERY)) == NotDelivered(2, describe(error), retry=True)
    clock.advance(timedelta(seconds=GIVE_UP_SECONDS))
    assert isinstance(handler.answer(Deliver(1, DELIVERY)), Delivered)


def test_deliverer_answer_of_proxy_instead_of_json_is_outage() -> None:
    handler, _ = desk_over(ScriptedMirror(json.JSONDecodeError("Expecting value", "<html>", 0)))
    answer = handler.answer(Deliver(1, DELIVERY))
    assert isinstance(answer, NotDelivered)
    assert answer.retry


def test_reason_is_one_short_line_without_secrets() -> None:
    reason = describe(OSError("cannot reach http://me:geheim@host\nand more" + "x" * 1000))
    assert reason == "OSError: cannot reach http://me:***@host"
    assert describe(OSError()) == "OSError: no message"


def test_deliverer_that_is_not_opened_first_refuses_stream() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, msgspec.json.encode(Deliver(1, DELIVERY)))
        with pytest.raises(ProtocolError, match="first frame"):
            serve(theirs, ManualClock(AT))


def test_deliverer_ends_when_its_input_closes() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            send(ours, msgspec.json.encode(OpenStore("http://127.0.0.1:1")))
        serve(theirs, ManualClock(AT))
        assert theirs.recv(1) == b""


def test_lock_is_held_while_delivering_and_not_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "mlflow" / "deliverer.lock"
    held = []

    def open_it(_: OpenStore) -> ScriptedMirror:
        held.append(not _is_free(lock))
        return ScriptedMirror()

    monkeypatch.setattr(deliverer, "open_mirror", open_it)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, msgspec.json.encode(OpenStore("x", lock_file=str(lock))))
        send(ours, msgspec.json.encode(Deliver(1, DELIVERY)))
        ours.shutdown(socket.SHUT_WR)
        deliverer.serve(theirs, ManualClock(AT))
        assert receive(ours) == msgspec.json.encode(Delivered(1, "r"))
    assert held == [True]
    assert _is_free(lock)


def _is_free(lock: Path) -> bool:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
