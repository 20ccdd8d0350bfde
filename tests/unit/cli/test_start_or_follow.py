"""What `trainflow start` says of an early Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from trainflow.actions import start
from trainflow.cli.render.output import EXIT_INTERRUPTED
from trainflow.cli.start_or_follow import _as_engine


def test_start_interrupted_before_it_began_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def interrupted(*_given: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(start, "train_as_engine", interrupted)
    assert _as_engine(None, plain=True, ready=None) == EXIT_INTERRUPTED  # type: ignore[arg-type]
    assert capsys.readouterr().out == "stopped before anything was begun\n"
