"""What the installed command does first."""

from __future__ import annotations

import sys

import pytest

from trainflow.cli import entry


class InterruptedImport:
    """Ctrl-C while the command line is imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "trainflow.cli.main":
            raise KeyboardInterrupt


def test_command_interrupted_while_it_is_imported_ends_without_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trainflow.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [InterruptedImport(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130
