"""When a worker stops to begin again, and when it does not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from trainflow.actions import worker_restart
from trainflow.actions.worker_restart import WorkerRestart


class Stops:
    """Counts how often the worker was asked to stop."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def hangups() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_package_that_is_replaced_stops_the_worker_once_and_begins_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stops = Stops()
    restart = WorkerRestart(stops)
    assert not restart.is_due()
    monkeypatch.setattr(worker_restart, "is_replaced", lambda: True)
    assert restart.is_due()
    assert restart.is_due()
    assert stops.count == 1
    assert restart.begins_again()


def test_worker_that_is_told_to_stop_meanwhile_does_not_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    restart = WorkerRestart(Stops())
    monkeypatch.setattr(worker_restart, "is_replaced", lambda: True)
    assert restart.is_due()
    restart.told_to_end()
    assert not restart.begins_again()


def test_worker_that_stops_otherwise_does_not_begin_again() -> None:
    assert not WorkerRestart(Stops()).begins_again()


def test_environment_is_that_which_it_was_started_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINFLOW__EXECUTORS__FLEET__BROKER", "redis://broker")
    restart = WorkerRestart(Stops())
    monkeypatch.delenv("TRAINFLOW__EXECUTORS__FLEET__BROKER")
    monkeypatch.setenv("TRAINFLOW_HOME", "/tmp/of-the-worker")
    restart.begins_again()
    assert os.environ["TRAINFLOW__EXECUTORS__FLEET__BROKER"] == "redis://broker"
    assert os.environ.get("TRAINFLOW_HOME") != "/tmp/of-the-worker"


@pytest.mark.usefixtures("hangups")
def test_hangup_has_it_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    stops = Stops()
    restart = WorkerRestart(stops)
    restart.hear_hangup()
    os.kill(os.getpid(), signal.SIGHUP)
    assert stops.count == 1
    assert restart.is_due()


@pytest.mark.usefixtures("hangups")
def test_hangup_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    restart = WorkerRestart(Stops())
    signal.signal(signal.SIGHUP, lambda *_: None)  # Celery's own
    restart.hear_hangup()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
