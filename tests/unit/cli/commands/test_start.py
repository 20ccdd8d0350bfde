"""What `trainflow start` says of a run that began before the pipeline was changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainflow.cli.start_or_follow import say_what_goes_on
from trainflow.execution.dag_files import DagFiles
from trainflow.insight.progress import ProgressFeed
from trainflow.messages.workload import DagSource
from trainflow.operators import DataCheckerOperator
from trainflow.settings.home import Home
from trainflow.settings.project import Project

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FILE = """
pipeline: days
samples: {{path: "data/{{start:%Y-%m-%d}}/", length: 1d, start: 2024-01-01}}
train: {{command: [python, train.py]}}
split: {{partitions: {days}}}
"""


def test_start_with_outdated_run_says_what_it_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    say_what_goes_on(
        [
            ProgressFeed("days", frozenset(), None, NOW, roots=frozenset(), outdated=3),
            ProgressFeed("x", frozenset(), None, NOW, roots=frozenset()),
        ],
        "pipelines/days.yaml",
    )

    assert capsys.readouterr().out == (
        "days: goes on with run 3, which began before the pipeline was changed: its tasks and its --set stay as they "
        "were, and what starts now reads the file as it is (functions, params, samples; a wait for samples looks "
        "anew). To have all of the change now: 'trainflow runs cancel days 3', then 'trainflow start "
        "pipelines/days.yaml'\n"
    )


def test_worker_with_changed_file_reads_it_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/trainflow.toml").touch()
    project, path = Project(tmp_path, Home(tmp_path / ".trainflow")), tmp_path / "days.yaml"
    found = []
    for days in (1, 2):
        path.write_text(FILE.format(days=days))
        task = DagFiles(project).get(DagSource("days.yaml")).dags["days"].get_task("samples")
        assert isinstance(task, DataCheckerOperator)
        found.append(task.limits.partitions)

    assert found == [1, 2]
