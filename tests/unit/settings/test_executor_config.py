"""What a task may ask of its executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainflow.errors import InputError
from trainflow.settings.executor_config import check_executor_config
from trainflow.settings.project import MARKER


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / MARKER
    path.parent.mkdir()
    path.write_text('[executors]\nlocal = {}\ncluster = {type = "ray", address = "http://head:8265"}\n')
    return tmp_path


def test_executor_config_of_ray_is_what_its_job_needs(root: Path) -> None:
    check_executor_config(root, "train", "cluster", {"num_cpus": 0.5, "resources": {"a100": 1}})
    check_executor_config(root, "train", "cluster", {})


@pytest.mark.parametrize(
    ("executor", "config", "message"),
    [
        ("cluster", {"num_gpu": 1}, "task 'train': executor_config: unknown key 'num_gpu'; did you mean 'num_gpus'"),
        ("cluster", {"num_gpus": -1}, r"task 'train': executor_config: .*>= 0.*num_gpus"),
        ("cluster", {"memory": "64GB"}, r"task 'train': executor_config: .*memory"),
        ("local", {"num_gpus": 1}, "executor 'local' is of type local, and can be asked for nothing"),
    ],
)
def test_executor_config_that_cannot_be_is_refused(
    root: Path, executor: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_executor_config(root, "train", executor, config)
