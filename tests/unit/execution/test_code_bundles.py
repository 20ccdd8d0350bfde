"""Where a worker has the project's code from."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from trainflow.errors import EngineError, InputError
from trainflow.execution.code_bundles import code_of
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.settings.project import MARKER


def workload(code: str, root: Path) -> ExecuteTask:
    source = DagSource("pipelines/p.py")
    return ExecuteTask(AttemptKey("a"), 1, "d", "r", "t", -1, source, str(root), "/home", "/log", code=code)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name in (MARKER, Path("pipelines/p.py")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


@pytest.mark.parametrize("code", ["", "shared"])
def test_shared_code_is_at_same_path(root: Path, tmp_path: Path, code: str) -> None:
    assert code_of(workload(code, root), None, tmp_path) == root
    with pytest.raises(InputError, match=r"workers\.code is 'shared': this host has no folder .*/nowhere"):
        code_of(workload(code, tmp_path / "nowhere"), None, tmp_path)


def test_code_of_image_is_where_worker_was_started(root: Path, tmp_path: Path) -> None:
    assert code_of(workload("image", tmp_path / "nowhere"), None, root / "pipelines") == root


def test_folder_that_is_given_wins(root: Path, tmp_path: Path) -> None:
    assert code_of(workload("git+x@1", tmp_path), root, tmp_path) == root


@pytest.mark.parametrize("inside", ["", "repo-main/"])
def test_zip_is_unpacked_once(root: Path, tmp_path: Path, cache: Path, inside: str) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        for path in (MARKER.as_posix(), "pipelines/p.py"):
            archive.write(root / path, inside + path)
    code = f"file://{tmp_path}/code.zip"
    found = code_of(workload(code, tmp_path), None, tmp_path)
    assert (found / MARKER).is_file()
    (tmp_path / "code.zip").unlink()
    assert code_of(workload(code, tmp_path), None, tmp_path) == found
    assert len(list((cache / "trainflow" / "code").iterdir())) == 1


def test_zip_that_is_not_there_is_named_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    code = f"file://{tmp_path}/code.zip"
    with pytest.raises(EngineError, match=r"code\.zip cannot be brought to this host: FileNotFoundError"):
        code_of(workload(code, tmp_path), None, tmp_path)
    assert list((cache / "trainflow" / "code").iterdir()) == []


def test_commit_is_checked_out(root: Path, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.com")
        return subprocess.run(
            ["git", "-C", str(root), *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    commit = git("rev-parse", "HEAD")
    (root / "pipelines" / "p.py").write_text("changed")
    git("commit", "--quiet", "-a", "-m", "two")
    found = code_of(workload(f"git+file://{root}@{commit}", tmp_path), None, tmp_path)
    assert (found / "pipelines" / "p.py").read_text() == ""
    with pytest.raises(EngineError, match="git fetch: "):
        code_of(workload(f"git+file://{root}@{'0' * 40}", tmp_path), None, tmp_path)
