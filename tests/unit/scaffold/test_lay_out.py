from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.errors import InputError, ProjectError
from trainflow.operators.training.training_context import EvaluateContext, ParentCheckpoint, TrainContext
from trainflow.pipeline_spec.load import load_pipeline_file
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.samples.splits.split import Split
from trainflow.scaffold.lay_out import lay_out
from trainflow.settings.load import load_settings
from trainflow.settings.project import current_project, project_at

FILES = [
    ".gitignore",
    "README.md",
    "configs/trainflow.toml",
    "operators/example.py",
    "pipelines/example.yaml",
    "tests/test_example.py",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    lay_out(tmp_path / "forecasts", "forecasts")
    return tmp_path / "forecasts"


def test_lay_out_makes_a_project(project: Path) -> None:
    written = sorted(path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file())
    assert written == FILES
    assert current_project(project / "pipelines").root == project.resolve()
    assert load_settings(project_at(project), {}).checkpoints.store == "checkpoints"
    assert (project / "README.md").read_text().startswith("# forecasts\n")
    assert not [name for name in FILES if "{{name}}" in (project / name).read_text()]


def test_files_are_named(tmp_path: Path) -> None:
    assert lay_out(tmp_path / "new", "new") == [tmp_path / "new" / name for name in FILES]


def test_folder_that_holds_something_else_is_fine(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    lay_out(tmp_path, "mine")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_lay_out_overwrites_nothing_and_leaves_no_half(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "example.yaml").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ProjectError, match=r"holds README\.md, pipelines/example\.yaml already: name a new folder"):
        lay_out(tmp_path, "mine")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["README.md", "example.yaml"]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_lay_out_interrupted_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / "pipelines").write_text("a file where a folder has to be")
    with pytest.raises(ProjectError, match="cannot lay out a project in"):
        lay_out(tmp_path, "mine")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["pipelines"]


def test_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match="is a file"):
        lay_out(tmp_path / "file", "mine")


def test_name_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot name a project"):
        lay_out(tmp_path / "x", "../x")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_lay_out_tests_of_project_pass(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


# -- its pipeline --------------------------------------------------------------------------------------------------


@pytest.fixture
def example(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delitem(sys.modules, "operators", raising=False)
    monkeypatch.delitem(sys.modules, "operators.example", raising=False)
    yield importlib.import_module("operators.example")
    sys.modules.pop("operators.example", None)


def context(project: Path, dag: DAG, split: Split, attempt: str) -> dict[str, Any]:
    return {
        "split": split,
        "params": dag.resolve_params(),
        "seed": 1,
        "run_id": "run",
        "attempt_id": attempt,
        "logger": logging.getLogger("example"),
        "project_root": project,
        "_report": lambda *_, **__: None,
    }


def test_lay_out_pipeline_trains_every_day_and_improves(project: Path, example: Any) -> None:
    dag = load_pipeline_file(project / "pipelines" / "example.yaml", {}, project_at(project)).dags[0]
    example.prepare(SimpleNamespace(project_root=project), dag.resolve_params())
    samples: Any = dag.get_task("samples")
    parent, trained, errors = None, [], []
    while True:
        watermark = parent.watermark if parent else None
        answer = next_split(samples.samples, watermark, samples.limits, datetime(2024, 2, 1, tzinfo=UTC), project)
        if not isinstance(answer, SplitFound):
            break
        split = answer.split.reached_by(root=project)
        name = str(len(trained))
        output = project / "out" / name
        output.mkdir(parents=True)
        common = context(project, dag, split, name)
        if parent:
            errors.append(example.evaluate(EvaluateContext(parent=parent, **common))["rmse"])
        metrics = example.train(TrainContext(parent=parent, output=output, **common))
        trained.append(len(split.partitions))
        parent = ParentCheckpoint(id=name, number=len(trained), watermark=split.end, path=output)

    assert trained == [3, 3, 3, 1]
    assert metrics == pytest.approx({"slope": 3.0, "intercept": 1.0}, abs=0.01)
    assert all(error == pytest.approx(0.1, rel=0.1) for error in errors)
    assert len(errors) == 3
