"""Modules that are imported and not loaded; a package that is installed anew under a process."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from trainflow import bootstrap
from trainflow.bootstrap import load_when_used


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the standard library that nothing here has loaded."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    load_when_used("colorsys")
    return "colorsys"


def test_module_that_was_imported_is_loaded_once_it_is_asked(unloaded: str) -> None:
    module = import_module(unloaded)
    assert "__file__" not in vars(module)

    assert module.rgb_to_hsv(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)
    assert sys.modules[unloaded] is not module
    assert sys.modules[unloaded].rgb_to_hsv is module.rgb_to_hsv


def test_function_of_a_module_that_was_imported_loads_it_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    load_when_used("colorsys:rgb_to_hsv")
    taken = import_module("colorsys").rgb_to_hsv
    assert "__file__" not in vars(sys.modules["colorsys"])

    assert taken(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)
    assert "__file__" in vars(sys.modules["colorsys"])


def test_submodule_of_a_package_that_was_imported_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "wsgiref"]:
        monkeypatch.delitem(sys.modules, name)
    load_when_used("wsgiref")
    assert import_module("wsgiref.util").__name__ == "wsgiref.util"


def test_module_that_lacks_what_it_is_asked_for_says_so(unloaded: str) -> None:
    with pytest.raises(AttributeError, match="colorsys"):
        _ = import_module(unloaded).nothing


def test_module_that_is_loaded_stays_as_it_is() -> None:
    before = sys.modules["json"]
    load_when_used("json")
    assert sys.modules["json"] is before


def test_module_in_package_is_loaded_by_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    import xml

    monkeypatch.delitem(sys.modules, "xml.sax", raising=False)
    monkeypatch.delattr(xml, "sax", raising=False)
    load_when_used("xml.sax")
    from xml import sax

    assert sax.make_parser is import_module("xml.sax").make_parser


def test_module_that_its_package_imports_is_not_loaded_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "made_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import seldom\n")
    (package / "seldom.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_when_used("made_package.seldom")
    assert "made_package" not in sys.modules
    made: Any = import_module("made_package")
    assert "VALUE" not in vars(made.seldom)
    assert made.seldom.VALUE == 3
    for name in ("made_package", "made_package.seldom"):
        del sys.modules[name]


def test_package_that_stays_is_not_replaced() -> None:
    assert not bootstrap.is_replaced()


@pytest.mark.parametrize("found", [None, (1, 2, 3)], ids=["being installed", "installed"])
def test_package_with_another_top_module_is_replaced(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    monkeypatch.setattr(bootstrap, "_installed", lambda _known: found)
    assert bootstrap.is_replaced()


class _TopModule:
    """A file that stands in for that of the top module, as this process has begun with it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        path.write_text('__version__ = "1.0"\n')
        monkeypatch.setattr(sys.modules["trainflow"], "__file__", str(path))
        monkeypatch.setattr(bootstrap, "_IMPORTED", bootstrap._installed())

    def write_anew(self, text: str) -> None:
        """Another file of the same name, size and time."""
        before, new = self.path.stat(), self.path.with_suffix(".new")
        new.write_text(text)
        os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
        new.replace(self.path)


@pytest.fixture
def top_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _TopModule:
    return _TopModule(tmp_path / "top.py", monkeypatch)


def test_file_that_has_another_number_and_the_same_content_is_not_replaced(top_module: _TopModule) -> None:
    top_module.write_anew('__version__ = "1.0"\n')
    assert not bootstrap.is_replaced()


def test_build_of_the_same_size_and_time_is_another_one(top_module: _TopModule) -> None:
    top_module.write_anew('__version__ = "1.1"\n')
    assert bootstrap.is_replaced()


def test_build_whose_top_module_says_the_same_is_told_by_its_time(top_module: _TopModule) -> None:
    os.utime(top_module.path, ns=(1, 1))
    assert bootstrap.is_replaced()


def test_package_that_is_gone_is_being_replaced(top_module: _TopModule) -> None:
    top_module.path.unlink()
    assert bootstrap.is_replaced()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
def test_package_on_a_disk_that_does_not_answer_is_not_replaced(
    top_module: _TopModule, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(_path: str) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(os, "stat", fails)
        replaced = bootstrap.is_replaced()
    assert not replaced


class Became(Exception):
    """This process is another one from now on."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The command that this process was started as."""
    path = tmp_path / "trainflow"
    path.touch()

    def became(path: str, arguments: list[str]) -> None:
        raise Became(path, *arguments)

    monkeypatch.setattr(os, "execv", became)
    monkeypatch.setattr(bootstrap.time, "sleep", lambda _seconds: None)
    words = [str(path), "resume", "p", "--ready", "7", "--accept"]
    monkeypatch.setattr(sys, "orig_argv", ["python", *words])
    monkeypatch.setattr(sys, "argv", words)
    return path


@pytest.mark.parametrize(("instead", "words"), [((), ("resume", "p", "--accept")), (("start", "q"), ("start", "q"))])
def test_run_again_is_the_same_command_without_what_was_handed_to_this_process(
    script: Path, instead: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with pytest.raises(Became) as found:
        bootstrap.run_again(without="--ready", instead=instead)
    assert found.value.args == (sys.executable, sys.executable, str(script), *words)


def test_run_again_waits_for_the_command_which_an_installer_writes_last(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip takes the command away with the old build, and writes it anew after all modules of the new one."""
    script.unlink()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            script.touch()

    monkeypatch.setattr(bootstrap.time, "sleep", sleep)
    with pytest.raises(Became):
        bootstrap.run_again(without="--ready")
    assert len(slept) == 3


def test_run_again_gives_up_on_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(bootstrap, "_installed", lambda: None)
    bootstrap.run_again(without="--ready", patience_seconds=0.01)
