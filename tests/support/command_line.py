"""The command line over a project, in the process of a test: a hundredth of what a process of its own costs."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any
from unittest import mock

import typer

from trainflow.cli import main

if TYPE_CHECKING:
    import pytest

    from trainflow.settings.project import Project


@functools.cache
def _commands() -> Any:
    """The commands as Typer makes them, once: that takes longer than most of them."""
    return typer.main.get_command(main.application())


def run_command(*arguments: str) -> int:
    """The exit code of a command line; what it prints goes where this process prints."""
    commands = _commands()
    with mock.patch.object(main, "application", return_value=commands):
        return main.run(list(arguments))


class CommandLine:
    """Commands over a project. The current folder is to be in it."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = project.root
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and what went to stdout (or, when that is nothing, to stderr)."""
        code = run_command(*arguments)
        said = self._capsys.readouterr()
        return code, said.out or said.err

    def said(self, *arguments: str, code: int = 0) -> str:
        """What a command printed. Raises AssertionError with that when it ended with another code."""
        found, out = self.run(*arguments)
        assert found == code, out
        return out

    def json(self, *arguments: str, code: int = 0) -> Any:
        """What `… --json` says."""
        return json.loads(self.said(*arguments, "--json", code=code))
