from __future__ import annotations

import pytest

from trainflow.cli.render.output import print_table

RUN, WHEN = "manual__2026-11-30T02:30:26.123456Z_abcdef", "2026-11-30T02:30:26Z"
NOTE = "a sentence that has to be folded somewhere because it does not fit at all, however wide the terminal is"


@pytest.mark.parametrize(
    ("width", "whole"),
    [
        (200, {RUN, WHEN, NOTE}),
        (110, {RUN, WHEN}),
        (80, {WHEN}),  # no room for the longest
        (40, set()),
    ],
)
def test_table_in_terminal_folds_sentences_before_ids_before_dates(
    width: int, whole: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))

    print_table(["RUN", "STARTED", "STATE", "NOTE"], [[RUN, WHEN, "failed", NOTE], ["r", WHEN, "success", ""]])

    _, *lines = capsys.readouterr().out.splitlines()  # without the titles, which are bold
    assert {each for each in (RUN, WHEN, NOTE) if any(each in line for line in lines)} == whole
    assert max(map(len, lines)) <= width
