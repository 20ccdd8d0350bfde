"""Which project a file belongs to, and where its home keeps what."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainflow.errors import ProjectError, SettingsError
from trainflow.identifiers import new_attempt_id
from trainflow.settings import home
from trainflow.settings.home import Home
from trainflow.settings.project import Project, current_project, find_root, project_at, project_of

WriteProject = Callable[[dict[str, str]], Project]


def test_nearest_marker_above_is_root(write_project: WriteProject) -> None:
    project = write_project({"pipelines/deep/er/a.py": "", "inner/configs/trainflow.toml": "", "inner/b.py": ""})
    assert find_root(project.root / "pipelines" / "deep") == project.root
    assert project_of(project.root / "pipelines" / "deep" / "er" / "a.py") == project
    assert project_of(project.root / "inner" / "b.py").root == project.root / "inner"


def test_file_outside_of_any_project_is_its_own(tmp_path: Path) -> None:
    assert project_of(tmp_path / "a.py") == Project(tmp_path, Home(tmp_path / ".trainflow"))


def test_project_outside_any_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="trainflow init"):
        current_project(tmp_path)


def test_home_may_lie_elsewhere(write_project: WriteProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINFLOW_HOME", str(tmp_path / "elsewhere"))
    assert write_project({}).home.path == tmp_path / "elsewhere"


def test_paths_in_database_are_relative_where_they_can_be(write_project: WriteProject, tmp_path: Path) -> None:
    project = write_project({"pipelines/a.py": ""})
    inside, outside = project.root / "pipelines" / "a.py", tmp_path / "b.py"
    assert project.relative(inside) == "pipelines/a.py"
    assert project.relative(outside) == outside.as_posix()
    for path in (inside, outside):
        assert project.absolute(project.relative(path)) == path


def test_link_to_project_is_project(write_project: WriteProject, tmp_path: Path) -> None:
    project = write_project({})
    link = tmp_path / "link"
    link.symlink_to(project.root)
    assert project_at(link) == project


def test_home_keeps_itself_out_of_git(tmp_path: Path) -> None:
    made = Home(tmp_path / "a" / ".trainflow")
    made.create()
    made.create()
    assert (made.path / ".gitignore").read_text() == "*\n"
    assert made.outcomes.is_dir()


def test_home_of_this_user_is_for_this_user_alone(tmp_path: Path) -> None:
    home = project_at(tmp_path).home
    home.path.mkdir(mode=0o755)
    home.create()
    assert home.path.stat().st_mode & 0o777 == 0o700


def test_socket_fits_into_its_address_however_deep_home_lies(tmp_path: Path) -> None:
    deep = Home(tmp_path / ("x" * 200) / ("y" * 200))
    assert len(os.fsencode(deep.socket_path)) <= 100
    assert deep.socket_path == Home(deep.path).socket_path
    assert deep.socket_path != Home(tmp_path).socket_path


def test_socket_is_where_process_with_another_tmpdir_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Home(tmp_path).socket_path
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert Home(tmp_path).socket_path == before

    monkeypatch.setattr(home, "SOCKETS", tmp_path / "nowhere")
    assert Home(tmp_path).socket_path.is_relative_to(tmp_path)


def test_logs_of_any_run_id_are_files_below_home(tmp_path: Path) -> None:
    path = Home(tmp_path).attempt_log("d", "manual__2026-01-01T00:00:00+00:00/../..", "t", "a1")
    assert path.resolve() == tmp_path.resolve() / "logs" / "d" / "manual__2026-01-01T000000+0000_.._.." / "t" / "a1.log"


def test_logs_of_longest_names_are_files_that_file_systems_allow(tmp_path: Path) -> None:
    path = Home(tmp_path).attempt_log("d" * 250, "r" * 250, "t" * 250, new_attempt_id(datetime(2026, 1, 1, tzinfo=UTC)))
    path.parent.mkdir(parents=True)
    path.touch()
    assert path.exists()


def test_home_unwritable_is_told_with_advice(tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(SettingsError, match=r"a_file.*: Not a directory; make .* writable, or set TRAINFLOW_HOME"):
        Home(tmp_path / "a_file" / ".trainflow").create()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room on its disk, or set TRAINFLOW_HOME to a folder with room"),
        (errno.EACCES, "make {path} writable, or set TRAINFLOW_HOME to a folder that is"),
    ],
)
def test_home_that_cannot_be_written_says_what_to_do(tmp_path: Path, number: int, advice: str) -> None:
    refused = Home(tmp_path).refused(OSError(number, os.strerror(number), str(tmp_path / "logs")))
    assert str(refused).endswith(f"{os.strerror(number)}; {advice.format(path=tmp_path)}")
