"""What `trainflow start` says of an early end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainflow.actions import detached_start, start
from trainflow.actions.detached_start import DetachedTraining
from trainflow.cli.render.output import EXIT_INTERRUPTED
from trainflow.cli.start_or_follow import _as_engine, _detached, _words_to_go_on


def test_start_interrupted_before_it_began_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def interrupted(*_given: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(start, "train_as_engine", interrupted)
    assert _as_engine(None, plain=True, ready=None) == EXIT_INTERRUPTED  # type: ignore[arg-type]
    said = "stopped before the pipeline was read; what was under way goes on with the next start\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("ended", "said", "code", "shown"),
    [
        (2, "error: no\n", 2, "error: no\n"),
        (2, "", 2, "is its disk full?"),
        (-15, "following it\n", 1, "it ended at once (killed by signal 15)"),
    ],
)
def test_detached_start_that_ended_says_what_it_said_or_why_it_could_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended: int, said: str, code: int, shown: str
) -> None:
    monkeypatch.setattr(
        detached_start, "train_detached", lambda _request: DetachedTraining(7, Path("start.log"), ended, said)
    )
    assert _detached(None) == code  # type: ignore[arg-type]
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["start", "p.yaml", "--set", "a=1"], []),
        (["resume", "p", "--accept"], ["start", "/x/p.yaml", "--set", "branch=hot"]),
        (["repair", "p", "--plain"], ["start", "/x/p.yaml", "--set", "branch=hot", "--plain"]),
    ],
)
def test_command_that_goes_on_as_another_build_decides_nothing_again(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], words: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trainflow", *typed])
    request: Any = SimpleNamespace(path=Path("/x/p.yaml"), overrides={"branch": "hot"})
    assert _words_to_go_on(request) == words
