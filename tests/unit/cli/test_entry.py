"""What the installed command does first."""

from __future__ import annotations

import sys

import pytest

from trainflow.cli import entry


class EndedImport:
    """What comes while the command line is imported."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "trainflow.cli.main":
            raise self._error


def test_command_interrupted_while_it_is_imported_ends_without_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trainflow.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [EndedImport(KeyboardInterrupt()), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130


def test_command_of_a_package_that_is_not_wholly_there_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = ModuleNotFoundError("No module named 'trainflow.cli.main'", name="trainflow.cli.main")
    monkeypatch.delitem(sys.modules, "trainflow.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [EndedImport(lacks), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 1
    assert "trainflow is being installed anew" in capsys.readouterr().err
