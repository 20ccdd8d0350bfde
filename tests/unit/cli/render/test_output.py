from __future__ import annotations

import re

import pytest

from trainflow.cli.render.output import print_table
from trainflow.humanize import number

RUN, WHEN = "manual__2026-11-30T02:30:26.123456Z_abcdef", "2026-11-30T02:30:26Z"
NOTE = "a sentence that has to be folded somewhere because it does not fit at all, however wide the terminal is"


@pytest.mark.parametrize(
    ("width", "whole"),
    [
        (200, {RUN, WHEN, NOTE}),
        (110, {RUN, WHEN}),
        (80, set()),  # no room for the longest column, and for seconds
        (40, {RUN, WHEN}),  # a value a line
    ],
)
def test_table_in_terminal_breaks_no_id_and_no_moment(
    width: int, whole: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))

    rows = [[RUN, WHEN, "failed", NOTE], ["r", WHEN, "success", ""]]
    print_table(["RUN", "STARTED", "STATE", "NOTE"], rows, ["RUN"])

    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert {each for each in (RUN, WHEN, NOTE) if any(each in line for line in lines)} == whole
    assert max(map(len, lines)) <= max(width, len(f"STARTED  {RUN}"))
    assert any("2026-11-30T02:30" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (12570.0, "12,570"),
        (12570.4, "12,570"),
        (3.0, "3"),
        (-0.0, "0"),
        (999.96, "1,000"),
        (0.98123, "0.9812"),
        (-12570.0, "-12,570"),
        (1e15, "1e+15"),
        (1.5e-7, "1.5e-07"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_number_is_written_out_where_it_is_whole_or_large(value: float, written: str) -> None:
    assert number(value) == written
