from __future__ import annotations

import sys

import pytest

from trainflow.checkpoints.file_progress import TOLD_BYTES, FileProgress
from trainflow.cli.render.file_progress import showing_files


@pytest.mark.parametrize("is_terminal", [True, False])
def test_showing_files_is_one_line_of_a_terminal_and_nothing_elsewhere(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    with showing_files(), FileProgress("verifying the files", 2) as progress:
        progress.add(TOLD_BYTES)
    with FileProgress("verifying the files", 2) as progress:
        progress.add(TOLD_BYTES)

    shown = "\r\x1b[Kverifying the files: 1 of 2 files\r\x1b[K" if is_terminal else ""
    assert capsys.readouterr().err == shown
