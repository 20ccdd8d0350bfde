"""The parts that a log is read in."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.api.rest import task_instances
from trainflow.insight.runs.logs import HomeLog


@pytest.mark.parametrize("most", [7, 8, 9, 100])
@pytest.mark.parametrize("end", ["", "\n"])
def test_parts_of_a_log_that_is_complete_end_with_a_line(tmp_path: Path, most: int, end: str) -> None:
    lines = ["über", "eins", "zwölf"]
    log = tmp_path / "a.log"
    log.write_text("\n".join(lines) + end)
    found: list[str] = []
    position, is_all = 0, False
    while not is_all:
        part, is_all = task_instances._next_part(HomeLog(log), position, most, ended=True)
        found += [line.event for line in task_instances._lines(part.data)]
        position = part.position
    assert found == lines
