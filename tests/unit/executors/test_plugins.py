"""Tables of `[executors]` that can never work are mistakes of the settings, told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.actions.start import request_training
from trainflow.errors import SettingsError
from trainflow.executors.celery import broker_problem
from trainflow.executors.plugins import check_options
from trainflow.insight.settings import problems
from trainflow.settings.load import load_settings
from trainflow.settings.project import Project, project_at

CELERY = '[executors.fleet]\ntype = "celery"\n'
BROKER = 'broker = "redis://b:6379/0"\n'


def _project(root: Path, toml: str) -> Project:
    (root / "configs").mkdir()
    (root / "configs" / "trainflow.toml").write_text(toml)
    return project_at(root)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            CELERY + BROKER + "redeliver_second = 3\n",
            "unknown setting executors.fleet.redeliver_second; did you mean 'redeliver_seconds'?",
        ),
        (CELERY + BROKER + "slot = 3\n", "unknown setting executors.fleet.slot; did you mean 'slots'?"),
        (CELERY, "executors.fleet.broker is missing"),
        (CELERY + "broker = 3\n", "executors.fleet.broker: expected text, not a whole number"),
        (
            CELERY + BROKER + 'redeliver_seconds = "x"\n',
            "executors.fleet.redeliver_seconds: expected a number, not text",
        ),
        (CELERY + BROKER + "redeliver_seconds = 0\n", "executors.fleet.redeliver_seconds: expected a number > 0.0"),
        (
            CELERY + 'broker = "reddis://b"\n',
            "executors.fleet.broker: Celery has no transport 'reddis'; did you mean 'redis'?",
        ),
        (
            '[executors.fleet]\ntype = "celry"\n',
            "executors.fleet.type: no kind of executor is called 'celry'; did you mean 'celery'?",
        ),
        (
            '[executors.here]\ntype = "workload"\nredeliver = 3\n',
            "unknown setting executors.here.redeliver; did you mean 'redeliver_seconds'?",
        ),
    ],
)
def test_table_that_can_never_work_is_refused_with_its_file(tmp_path: Path, toml: str, said: str) -> None:
    project = _project(tmp_path, toml)
    settings = load_settings(project, {})
    with pytest.raises(SettingsError) as caught:
        check_options(project, settings, {})
    assert str(caught.value) == f"{project.settings_file}: {said}"
    assert problems(project, {}) == [str(caught.value)]
    with pytest.raises(SettingsError) as refused:
        request_training(tmp_path / "pipelines" / "p.yaml", {})
    assert str(refused.value) == str(caught.value)


def test_broker_of_variable_that_is_misspelt_names_variable(tmp_path: Path) -> None:
    project = _project(tmp_path, CELERY)
    environ = {"TRAINFLOW__EXECUTORS__FLEET__BROKER": "reddis://u:hunter2@b"}
    with pytest.raises(SettingsError) as caught:
        check_options(project, load_settings(project, environ), environ)
    assert str(caught.value) == (
        "environment variable TRAINFLOW__EXECUTORS__FLEET__BROKER: executors.fleet.broker: "
        "Celery has no transport 'reddis'; did you mean 'redis'?"
    )


def test_table_that_is_right_is_accepted(tmp_path: Path) -> None:
    project = _project(tmp_path, CELERY + BROKER + "slots = 3\ntransport_options = {visibility_timeout = 3}\n")
    check_options(project, load_settings(project, {}), {})
    assert problems(project, {}) == []


@pytest.mark.parametrize(
    ("broker", "problem"),
    [
        ("redis://b:6379/0", None),
        ("rediss://:secret@b", None),
        ("sentinel://a:26379;sentinel://b:26379", None),
        ("mongodb://a:1,b:2/db", None),
        ("sqla+sqlite:///x.db", None),
        ("redis", "it is no URL: write one such as redis://HOST:6379/0 or amqp://USER@HOST//"),
        ("redis:/b", "it is no URL: write one such as redis://HOST:6379/0 or amqp://USER@HOST//"),
        ("redis://b:port/0", "its port must be a whole number from 0 to 65535"),
        ("redis://a;rediss//b", "it is no URL: write one such as redis://HOST:6379/0 or amqp://USER@HOST//"),
        ("monggodb://a", "Celery has no transport 'monggodb'; did you mean 'mongodb'?"),
    ],
)
def test_broker_problem_of_url(broker: str, problem: str | None) -> None:
    assert broker_problem(broker, lambda: ["mongodb", "redis", "sqla"]) == problem


def test_broker_problem_without_celery_leaves_scheme_alone() -> None:
    assert broker_problem("reddis://b", None) is None
