from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainflow.errors import InputError
from trainflow.settings.home import Home
from trainflow.settings.model import TrackingSettings
from trainflow.tracking.ui import chain_url, server_command, server_url, target, tracking_uri

POSTGRES = "postgresql://me:geheim@db/mlflow"


def test_default_is_sqlite_in_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert tracking_uri(TrackingSettings(), home) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    opened = target(TrackingSettings(), home)
    assert opened.artifact_root == f"file://{tmp_path}/mlflow/artifacts"
    assert opened.lock_file == f"{tmp_path}/mlflow/deliverer.lock"


def test_server_decides_where_artifacts_go(tmp_path: Path) -> None:
    opened = target(TrackingSettings(uri="http://mlflow:5000"), Home(tmp_path))
    assert (opened.tracking_uri, opened.artifact_root) == ("http://mlflow:5000", None)


def test_ui_command_hides_store_url(tmp_path: Path) -> None:
    command = server_command(TrackingSettings(uri=POSTGRES), Home(tmp_path), host="127.0.0.1", port=5001)
    assert command.environment["MLFLOW_BACKEND_STORE_URI"] == POSTGRES
    assert command.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert command.environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "geheim" not in " ".join(command.argv)
    assert command.url == "http://127.0.0.1:5001"
    assert (tmp_path / "mlflow").is_dir()


def test_page_of_chain_is_that_of_training() -> None:
    url = "http://h/#/experiments/1/runs/ab/model-metrics?workflowType=machine_learning"
    assert chain_url("http://h", "1", "ab") == url


def test_server_is_not_served_again(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"open https://me:\*\*\*@mlflow in a browser"):
        server_command(TrackingSettings(uri="https://me:geheim@mlflow"), Home(tmp_path), host="h", port=1)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:5000"), ("::", "http://[::1]:5000"), ("box", "http://box:5000")],
)
def test_address_is_one_browser_can_open(host: str, url: str) -> None:
    assert server_url(host, 5000) == url


def test_engines_side_does_not_import_mlflow() -> None:
    names = ("deliverer", "delivery_client", "mlflow_fields", "ui")
    modules = ", ".join(f"trainflow.tracking.{name}" for name in names)
    code = f"import sys, {modules}; sys.exit(any(m in sys.modules for m in ('mlflow', 'pandas', 'sqlalchemy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
