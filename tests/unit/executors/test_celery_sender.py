"""What the thread says that sends messages, when the broker is away."""

from __future__ import annotations

import pytest

from trainflow.executors import celery
from trainflow.executors.celery import CeleryOptions, celery_app
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask

BROKER = "redis://user:secret@broker.example:6379/0"


class Control:
    """A broker that is away for the first calls."""

    def __init__(self, times: int) -> None:
        self.left = times

    def revoke(self, _message: str) -> None:
        self.left -= 1
        if self.left >= 0:
            raise OSError(f"cannot reach {BROKER}")


class App:
    """What is asked of Celery."""

    def __init__(self, times: int) -> None:
        self.control = Control(times)

    def close(self) -> None:
        """Nothing is open."""


def test_message_that_cannot_be_called_off_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(celery, "celery_app", lambda _options: App(3))
    sender = celery._Sender(CeleryOptions(BROKER), lambda *_failed: None, lambda _sent: None)
    for number in range(5):
        sender.revoke(AttemptKey(f"a{number}"))
    sender.end()
    assert caplog.text.count("cannot be called off") == 1
    assert "secret" not in caplog.text


def test_worker_waits_for_its_broker_for_ever() -> None:
    """Celery's gives up after a hundred tries, which is an hour."""
    pytest.importorskip("celery")
    app = celery_app(CeleryOptions(broker="amqp://127.0.0.1:1//"))
    tried = 0

    class StillTriesError(Exception):
        """It would go on."""

    def count(_error: Exception, _interval: float) -> None:
        nonlocal tried
        tried += 1
        if tried > 110:
            raise StillTriesError

    with pytest.raises(StillTriesError):
        app.connection_for_read().ensure_connection(
            count, app.conf.broker_connection_max_retries, interval_start=0, interval_step=0
        )


def test_celery_that_cannot_be_imported_is_told_for_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_options: CeleryOptions) -> App:
        raise ImportError("cannot import name 'X' from 'kombu'")

    monkeypatch.setattr(celery, "celery_app", broken)
    failed: list[str] = []
    sender = celery._Sender(CeleryOptions(BROKER), lambda _sent, reason: failed.append(reason), lambda _sent: None)
    for _ in range(2):
        sender.send(ExecuteTask(AttemptKey("a"), *(1, "d", "r", "t", -1, DagSource("p.py"), "/srv/p", "/srv/h", "l")))
    sender.end()
    assert [("from 'kombu'" in each, "secret" in each) for each in failed] == [(True, False)] * 2
