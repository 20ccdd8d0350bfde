"""What a signal finds while the server's process is being created."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from trainflow.actions import mlflow_server
from trainflow.actions.mlflow_server import MlflowServer
from trainflow.tracking.ui import ServerCommand

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_interrupted_while_its_process_is_created_leaves_none(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes between the fork and the return of Popen: no one would know the child."""
    begin, created = mlflow_server._begin, []

    def interrupted(argv: list[str], environment: dict[str, str], log: Path):
        created.append(begin(argv, environment, log))
        os.kill(os.getpid(), number)
        return created[0]

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(mlflow_server, "_begin", interrupted)
    server = MlflowServer(ServerCommand(SLEEP, {}, None), "127.0.0.1", 1, tmp_path / "log")
    try:
        with pytest.raises(KeyboardInterrupt), server.running():
            pytest.fail("the block is not begun")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [process.poll() for process in created] == [-signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
