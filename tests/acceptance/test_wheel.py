"""The wheel is complete: installed outside of the checkout it lays out a project and trains it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from trainflow.testing.processes import DEADLINE_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with nothing but the wheel; what the wheel depends on is borrowed from here."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("trainflow-*.whl")
    environment = folder / "venv"
    venv.create(environment)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    # a plain path: the checkout, which is installed in editable form there, does not come along
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def run(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINFLOW", "PYTHON"))}
    kept["PATH"] = f"{environment / 'bin'}{os.pathsep}{kept['PATH']}"
    return subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


def test_init_and_start_from_wheel(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "python", "-c", "import trainflow; print(trainflow.__file__)")
    assert Path(where.stdout).is_relative_to(installed), where

    made = run(installed, tmp_path, "trainflow", "init", "project")
    assert made.returncode == 0, made.stdout + made.stderr
    project = tmp_path / "project"
    (pipeline,) = (project / "pipelines").glob("*.yaml")
    trained = run(installed, project, "trainflow", "start", str(pipeline.relative_to(project)))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "caught up" in trained.stdout
    audited = run(installed, project, "trainflow", "audit", str(pipeline.relative_to(project)))
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_wheel_ships_package_and_no_tests(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    in_checkout = subprocess.run(
        ["git", "ls-files", "trainflow"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert {name for name in in_checkout if (REPOSITORY / name).exists()} <= shipped
    assert "trainflow/py.typed" in shipped
    assert not any(name.startswith(("tests/", "operators/", "pipelines/")) for name in shipped)
