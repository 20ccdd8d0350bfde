from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.errors import InputError
from trainflow.workspace.locate import pipeline_path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/trainflow.toml").touch()
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "hourly.yaml").write_text("# of clicks\npipeline: clicks\n")
    (folder / "views.yaml").write_text("pipeline: 'page views'   # daily\n")
    (folder / "one.yaml").write_text("pipeline: twice\n")
    (folder / "two.yml").write_text("pipeline: twice\n")
    (folder / "clicks.txt").write_text("pipeline: clicks\n")
    (folder / "nested.yaml").write_text("stages:\n  pipeline: inner\n")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("hourly", "hourly.yaml"),
        ("pipelines/hourly.yaml", "hourly.yaml"),
        ("clicks", "hourly.yaml"),
        ("page views", "views.yaml"),
    ],
)
def test_pipeline_path_takes_file_or_name_of_pipeline(folder: Path, name: str, file: str) -> None:
    assert pipeline_path(name) == folder / file


@pytest.mark.parametrize("name", ["click", "twice", "inner", "c.*"])
def test_pipeline_path_of_no_one_file_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="there is no pipeline file"):
        pipeline_path(name)


@pytest.mark.parametrize(
    ("at", "name", "said"),
    [
        (".", "hurly", "; did you mean 'pipelines/hourly.yaml'?"),
        (".", "twice", ", and pipelines/one.yaml and pipelines/two.yml call their pipeline so: name the file"),
        ("configs", "nothing", "; there is: ../pipelines/hourly.yaml, "),
        ("..", "hourly", "is not inside a trainflow project, in which pipelines have names: change into one"),
    ],
)
def test_pipeline_path_that_is_refused_says_what_may_be_meant(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: str, name: str, said: str
) -> None:
    monkeypatch.chdir(folder.parent / at)
    with pytest.raises(InputError) as refused:
        pipeline_path(name)
    assert said in str(refused.value)
