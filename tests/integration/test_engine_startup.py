"""What is started before the engine is imported."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trainflow.engine import startup
from trainflow.engine.startup import early_start
from trainflow.settings.load import load_settings
from trainflow.settings.project import Project

WriteProject = Callable[[dict[str, str]], Project]


@pytest.mark.parametrize(
    ("toml", "forks"),
    [
        ("", True),
        ("[executors.local]\nisolation = 'spawn'\n", False),
        ("[executor]\ndefault = 'away'\n[executors]\naway = {type = 'workload'}\n", False),
        ("[executor]\ndefault = 'away'\n[executors]\naway = {type = 'workload'}\nlocal = {}\n", True),
    ],
)
def test_forkserver_is_started_only_where_local_executor_forks(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch, toml: str, forks: bool
) -> None:
    project = write_project({"configs/trainflow.toml": toml, "pipelines/p.py": ""})
    started: list[object] = []

    class Spawned:
        def discard(self) -> None:
            """Hang up."""

    monkeypatch.setattr(startup, "spawn_forkserver", lambda root: started.append(root) or Spawned())
    monkeypatch.setattr(startup, "start_early_parse", lambda *_: None)
    with early_start(project, load_settings(project), project.root / "pipelines" / "p.py", {}) as early:
        assert (early.forkserver is not None) == forks
    assert len(started) == forks
