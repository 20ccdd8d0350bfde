"""The command that runs the contract in whatever cluster `kubectl` points at: here, in the pod API server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kubernetes_clients import kubectl, write_kubeconfig
from trainflow.testing.kubernetes_api.server import PodApiServer

pytestmark = pytest.mark.slow


@pytest.mark.exhaustive
def test_contract_is_run_by_one_command(tmp_path: Path) -> None:
    path = f"{Path(kubectl()).parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with PodApiServer(tmp_path / "pods") as server:
        config = write_kubeconfig(tmp_path / "config", server.kubeconfig())
        command = [sys.executable, "-m", "trainflow.testing.kubernetes_contract", "--image", "any"]
        command += ["--host", "127.0.0.1", "--bind", "127.0.0.1", "--folder", str(tmp_path)]
        ran = subprocess.run(
            [*command, "--", "-k", "child_that_is_killed or cancelled or several_ranks"],
            cwd=tmp_path,
            env=os.environ | {"KUBECONFIG": str(config), "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "3 passed" in ran.stdout, ran.stdout + ran.stderr
        assert all(pod["metadata"].get("deletionTimestamp") for pod in server.pods())
