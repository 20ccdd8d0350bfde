"""Processes that run code of users are started without what only the control plane needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainflow.executors import spawn
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask

_WORKLOAD = ExecuteTask(AttemptKey("a"), 1, "d", "r", "t", -1, DagSource("p.yaml"), "/p", "/h", "/l")


@pytest.mark.parametrize("start", [lambda: spawn.spawn_forkserver(Path("/p")), lambda: spawn.spawn_attempt(_WORKLOAD)])
def test_process_for_code_of_users_is_started_without_secrets(
    monkeypatch: pytest.MonkeyPatch, start: Callable[[], object]
) -> None:
    given: list[dict[str, str]] = []

    def popen(*_words: Any, env: dict[str, str], **_options: Any) -> None:
        given.append(env)
        raise OSError("no process is started here")

    monkeypatch.setattr("trainflow.executors.spawn.subprocess.Popen", popen)
    for name in ("DATABASE__URL", "API__TOKEN", "NOTIFICATIONS__WEBHOOK", "EXECUTORS__FLEET__BROKER"):
        monkeypatch.setenv(f"TRAINFLOW__{name}", "secret")
    monkeypatch.setenv("TRAINFLOW__ENGINE__STOP_GRACE_SECONDS", "7")
    with pytest.raises(OSError, match="no process"):
        start()
    assert "secret" not in given[0].values()
    assert given[0]["TRAINFLOW__ENGINE__STOP_GRACE_SECONDS"] == "7"
