"""What a signal finds while the server's process is being created; a server that does not say what it has."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.http_servers import serving_application
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


def test_server_that_cannot_be_asked_names_no_page(tmp_path: Path) -> None:
    with serving_application(lambda _environ, start: (start("403 Forbidden", []), [b"<html>"])[1]) as port:
        server = MlflowServer(ServerCommand([], {}, ""), "127.0.0.1", port, tmp_path / "log")
        assert server.chain_pages() == []
    assert server.chain_pages() == []
