"""Throw-away projects for the installed command, and the samples of the example, made once."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.staged_project import DAYS, ONE_A_RUN, Made
from tests.support.live_project import LiveProject
from tests.support.tiny_project import tiny_project

REPOSITORY = Path(__file__).parents[2]
PREPARE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from operators.flights import prepare
prepare(SimpleNamespace(project_root=Path(sys.argv[1])))
"""


@pytest.fixture(scope="session")
def flights(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder with the example's samples in `data/flights`."""

    def prepare(folder: Path) -> None:
        subprocess.run([sys.executable, "-c", PREPARE, str(folder)], cwd=REPOSITORY, check=True)

    return made_once("flights", prepare)


@pytest.fixture
def projects(tmp_path: Path) -> Callable[..., LiveProject]:
    """Make live projects."""

    def make(name: str = "project", **options: str) -> LiveProject:
        return LiveProject(tmp_path / name, **options)

    return make


@pytest.fixture
def example(projects: Callable[..., LiveProject], flights: Path) -> LiveProject:
    """This repository's own project, with samples."""
    project = projects("example")
    shutil.copytree(flights / "data", project.root / "data", copy_function=os.link)
    for name in ("pipelines", "operators", "configs"):
        shutil.copytree(
            REPOSITORY / name,
            project.root / name,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__", "trainflow.toml"),
        )
    return project


@pytest.fixture
def tiny(tmp_path: Path) -> LiveProject:
    """Nine days of forty rows in three splits, nothing trained yet."""
    return tiny_project(tmp_path / "tiny", days=9)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Lay out a project whose pipeline has these stages."""
    number = itertools.count()

    def make(stages: str, shared: str = ONE_A_RUN, days: int = DAYS) -> LiveProject:
        return tiny_project(tmp_path / f"p{next(number)}", days=days, pipeline=f"{shared}stages:\n{stages}")

    return make
