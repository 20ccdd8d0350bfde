"""User code that logs to MLflow finds the run that mirrors its own; tracking never hurts training."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import msgspec
import pytest

from trainflow.messages.execution_api import TrackingRun
from trainflow.operators.training.training_context import enter_tracking_run, tracking_variables, uses_mlflow
from trainflow.settings.model import TrackingSettings

RUN = TrackingRun("sqlite:///mlflow.db", "abc")
VARIABLES = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "MLFLOW_RUN_ID": "abc"}


class Task:
    task_id = "train"


@pytest.fixture
def ti(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    lab.settings = msgspec.structs.replace(lab.settings, tracking=TrackingSettings(enabled=True))
    return lab.attempt(Task())


def test_run_that_exists_is_entered(ti: Any) -> None:
    ti.tracking = RUN
    assert tracking_variables(ti) == VARIABLES
    enter_tracking_run(ti)
    assert {name: os.environ[name] for name in VARIABLES} == VARIABLES


def test_run_that_is_being_made_is_waited_for(ti: Any) -> None:
    def made_meanwhile() -> None:
        ti.tracking = RUN

    ti.on_sleep = made_meanwhile
    assert tracking_variables(ti) == VARIABLES


def test_run_that_does_not_come_is_waited_for_briefly(ti: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    before = ti.clock.now()
    assert tracking_variables(ti) == {}
    assert 1 <= (ti.clock.now() - before).total_seconds() <= 5
    assert "no run in MLflow yet" in caplog.text


def test_mirror_that_fails_does_not_hurt(ti: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> TrackingRun:
        raise ConnectionError("engine is away")

    monkeypatch.setattr(ti, "get_tracking_run", broken)
    assert tracking_variables(ti) == {}


def test_tracking_that_is_off_asks_nothing(ti: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ti.settings = msgspec.structs.replace(ti.settings, tracking=TrackingSettings(enabled=False))
    monkeypatch.setattr(ti, "get_tracking_run", None)
    assert tracking_variables(ti) == {}


def test_tracking_without_mlflow_import_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    assert not uses_mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    assert uses_mlflow()
