"""What is said of a setting whose value does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.errors import SettingsError
from trainflow.insight.settings import problems
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[executors.local]\nslots = "x"', "executors.local.slots: expected a whole number, not text"),
        ("[executors.local]\nslots = 0", "executors.local.slots: expected a whole number >= 1"),
        ("[engine]\npoll_seconds = -1", "engine.poll_seconds: expected a number > 0.0"),
        (
            '[executors.local]\nisolation = "forkk"',
            "executors.local.isolation: 'forkk' is none of auto, fork, spawn; did you mean 'fork'?",
        ),
        ('[notifications]\ncommand = "x"', "notifications.command: expected a list, not text"),
        ("[samples]\nstorage_options = [1]", "samples.storage_options: expected a table, not a list"),
        (
            '[tracking]\nuri = "sqllite:///mlflow.db"',
            "tracking.uri: MLflow has no store for 'sqllite:'; known: databricks, http, https, mssql, "
            "mysql, postgresql, sqlite",
        ),
        (
            '[tracking]\nuri = "mlruns"',
            "tracking.uri: 'mlruns' is a folder, which MLflow refuses as a store of runs; use sqlite:///mlruns/mlflow.db",
        ),
    ],
)
def test_setting_is_named_and_what_it_may_be(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "trainflow.toml").write_text(text)
    project = project_at(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load_settings(project, {})
    assert str(caught.value) == f"{project.settings_file}: {said}"
    assert problems(project, {}) == [f"{project.settings_file}: {said}"]


@pytest.mark.parametrize(
    "uri", ["http://host:5000", "https://h", "sqlite:////x/m.db", "postgresql+psycopg://u@h/d", "databricks"]
)
def test_tracking_uri_that_mlflow_knows_is_accepted(tmp_path: Path, uri: str) -> None:
    assert load_settings(project_at(tmp_path), {"TRAINFLOW__TRACKING__URI": uri}).tracking.uri == uri


def test_tracking_uri_of_variable_names_variable(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"^environment variable TRAINFLOW__TRACKING__URI: tracking\.uri: MLflow has"
    ):
        load_settings(project_at(tmp_path), {"TRAINFLOW__TRACKING__URI": "foo://x"})


def test_variable_is_named_that_gives_value(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(project_at(tmp_path), {"TRAINFLOW__EXECUTORS__LOCAL__SLOTS": "many"})
    assert str(caught.value) == (
        "environment variable TRAINFLOW__EXECUTORS__LOCAL__SLOTS: "
        "executors.local.slots: expected a whole number, not text"
    )


TLS = '[api]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n'


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        (TLS, {}, []),
        ('[api]\ntls_cert = "cert.pem"', {"API__TLS_KEY": "key.pem"}, []),
        ("", {"API__TLS_CERT": "cert.pem", "API__TLS_KEY": "key.pem"}, []),
        ("[workers]\nheartbeat_seconds = 2\nlost_after_seconds = 12", {}, []),
        ("[workers]\nlost_after_seconds = 600", {"WORKERS__HEARTBEAT_SECONDS": "50"}, []),
        ('[api]\ntls_cert = "cert.pem"', {}, ["FILE: api.tls_cert: is given without api.tls_key"]),
        (
            TLS + 'token = "short"\nroot_path = "x"',
            {},
            [
                "FILE: api.token: has fewer than 16 characters; make one with: openssl rand -hex 24",
                "FILE: api.root_path: begins with a slash and does not end with one, e.g. /trainflow",
            ],
        ),
        (
            "[workers]\nheartbeat_seconds = 50\nlost_after_seconds = 25",
            {},
            [
                "FILE: workers.lost_after_seconds: is less than three times workers.heartbeat_seconds (50): "
                "one heartbeat that comes late would end an attempt"
            ],
        ),
        (
            "[api]\nport = 0\ntls_cert = 5",
            {"API__TLS_KEY": "7"},
            [
                "FILE: api.port: expected a whole number >= 1",
                "FILE: api.tls_cert: expected text, not a whole number",
                "environment variable TRAINFLOW__API__TLS_KEY: api.tls_key: expected text, not a whole number",
            ],
        ),
    ],
)
def test_problems_of_setting_are_those_beside_the_others(
    tmp_path: Path, text: str, environ: dict[str, str], said: list[str]
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "trainflow.toml").write_text(text)
    project = project_at(tmp_path)
    found = problems(project, {f"TRAINFLOW__{name}": value for name, value in environ.items()})
    assert [problem.replace(str(project.settings_file), "FILE") for problem in found] == said
