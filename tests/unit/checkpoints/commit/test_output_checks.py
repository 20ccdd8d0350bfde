"""What can never be committed is found by looking at names and kinds."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from trainflow.checkpoints.commit.output_checks import LONGEST_PATH_BYTES, check_fit, resolve_links
from trainflow.errors import ArtifactsRefused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "output"
    (made / "step-1").mkdir(parents=True)
    (made / "step-1" / "w").write_text("weights")
    (made / "model").write_text("model")
    (tmp_path / "outside").write_text("elsewhere")
    return made


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def _deep(path: Path) -> None:
    path = path / ("x" * 200) / ("y" * 200) / ("z" * 200)
    path.mkdir(parents=True)
    (path / ("w" * (LONGEST_PATH_BYTES - 606))).touch()


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "link outside": (lambda odd: odd.symlink_to("../outside"), "odd is a link to .*outside, outside of the output"),
    "absolute link": (lambda odd: odd.symlink_to("/etc/hosts"), "odd is a link to /etc/hosts, outside"),
    "folder outside": (lambda odd: odd.symlink_to("/etc"), "odd is a link to /etc, outside"),
    "dangling": (lambda odd: odd.symlink_to("nothing"), "odd is a link to nothing"),
    "itself": (lambda odd: odd.symlink_to("odd"), "odd is a link to nothing"),
    "its own folder": (lambda odd: odd.symlink_to("."), "odd is a link to a folder that it is in itself"),
    "pipe": (os.mkfifo, "odd is a socket, a pipe or a device"),
    "socket": (_socket, "odd is a socket, a pipe or a device"),
    "no UTF-8": (lambda odd: Path(os.fsdecode(os.fsencode(odd) + b"\xff")).touch(), r"odd\\xff has a name that is not"),
    "new line": (lambda odd: odd.with_name("o\ndd").touch(), "has a control character in its name"),
    "too long": (_deep, "has a path of 701 bytes below the output folder, at most 700"),
}


@pytest.mark.parametrize(("make", "says"), ODD.values(), ids=ODD.keys())
def test_output_never_committable_is_named(folder: Path, make: Callable[[Path], object], says: str) -> None:
    check_fit(folder)
    make(folder / "odd")
    with pytest.raises(ArtifactsRefused, match=says) as refused:
        check_fit(folder)
    assert refused.value.for_good
    refused.value.location.encode()


def test_output_unreadable_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("model"))
    with pytest.raises(ArtifactsRefused, match="model may not be read"):
        check_fit(folder)


@pytest.mark.parametrize("target", ["model", "./model", "step-1/w", "step-1"])
def test_link_to_what_is_in_folder_gets_its_content(folder: Path, target: str) -> None:
    (folder / "latest").symlink_to(target)
    check_fit(folder)
    resolve_links(folder)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    found = folder / "latest" / "w" if target == "step-1" else folder / "latest"
    assert found.read_text() == ("model" if target.endswith("model") else "weights")


def test_links_to_links_and_in_folders_that_are_linked(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("step-1")
    (folder / "step-1" / "v").symlink_to("w")
    check_fit(folder)
    resolve_links(folder)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "a/v", "a/w", "b/v", "b/w", "model", "step-1/v", "step-1/w",
    ]  # fmt: skip
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    check_fit(tmp_path / "nothing")
