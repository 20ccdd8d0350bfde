"""Stages in a circle: each day starts from what the other stage made of the day before."""

from __future__ import annotations

import shutil

import pytest

from tests.acceptance.staged_project import DAYS, ONE_A_RUN, Made, assert_audit_is_clean, origins, start, trained
from tests.support.live_project import LiveProject
from tests.support.tiny_project import FILE
from trainflow.testing.processes import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


def test_circle_each_day_starts_from_second_stage_of_day_before(made: Made) -> None:
    project = made("  day: {init_from: {stage: fine}}\n  fine: {init_from: {stage: day}}\n")
    start(project)
    for number in range(DAYS):
        before = [day for day in range(number) for _ in range(2)]
        assert trained(project, "day", number) == [*before, number]
        assert trained(project, "fine", number) == [*before, number, number]
    assert origins(project, "day") == [None, *(f"fine {number}" for number in range(1, DAYS))]
    assert origins(project, "fine") == [f"day {number}" for number in range(1, DAYS + 1)]
    assert_audit_is_clean(project, DAYS, DAYS)


CIRCLE = {
    "first": "  first: {init_from: {stage: second}, gates: [GATE]}\n  second: {init_from: {stage: first}}\n",
    "second": "  first: {init_from: {stage: second}}\n  second: {init_from: {stage: first}, gates: [GATE]}\n",
}


def circle(made: Made, where: str, otherwise: str) -> LiveProject:
    """Two stages in a circle, of which one does not like what it makes of the second day."""
    return disliking_the_second_day(made(CIRCLE[where].replace("GATE", GATE.replace("skip", otherwise))))


GATE = "{require: bad < 1, otherwise: skip}"


def disliking_the_second_day(project: LiveProject) -> LiveProject:
    """Its training functions measure how bad a day is."""
    source = (project.root / "operators/tiny.py").read_text()
    bad = '"bad": float(ctx.split.partitions[0].start.day == 2)'
    project.write("operators/tiny.py", source.replace('{"loss": abs(weight)}', f'{{"loss": abs(weight), {bad}}}'))
    return project


def assert_circle_stepped_over_the_second_day(project: LiveProject, where: str) -> None:
    """The day is in no weights that come after it, and the other stage has trained every day once."""
    assert origins(project, "first")[:2] == [None, "second 1"]
    if where == "second":
        assert [trained(project, "first", number) for number in range(4)] == [
            [0],
            [0, 0, 1],
            [0, 0, 2],
            [0, 0, 2, 2, 3],
        ]
        assert [trained(project, "second", number) for number in range(3)] == [
            [0, 0],
            [0, 0, 2, 2],
            [0, 0, 2, 2, 3, 3],
        ]
        assert_audit_is_clean(project, 4, 3)
    else:
        assert [trained(project, "first", number) for number in range(3)] == [[0], [0, 0, 2], [0, 0, 2, 2, 3]]
        # it begins each day with what the first has made of that or the next one
        assert [trained(project, "second", number) for number in range(4)] == [
            [0, 0],
            [0, 0, 1, 2],
            [0, 0, 2, 2],
            [0, 0, 2, 2, 3, 3],
        ]
        assert_audit_is_clean(project, 3, 4)


@pytest.mark.parametrize("where", ["second", "first"])
def test_circle_goes_on_after_gate_that_skips(made: Made, where: str) -> None:
    project = circle(made, where, "skip")
    start(project)
    assert_circle_stepped_over_the_second_day(project, where)


@pytest.mark.parametrize(("where", "entries"), [("second", 4), ("first", 3)])
def test_circle_after_skip_without_engine_and_database_goes_on(made: Made, where: str, entries: int) -> None:
    project = circle(made, where, "skip")
    running = project.begin_start(FILE)
    wait_for(lambda: project.committed("tiny") >= entries, lambda: running.output)
    project.kill_everything()
    shutil.rmtree(project.home.path)
    start(project)
    assert_circle_stepped_over_the_second_day(project, where)


def test_circle_goes_on_after_person_skips(made: Made) -> None:
    project = circle(made, "second", "stop")
    assert project.start(FILE).code == 1
    ended = project.run("resume", FILE, "--skip")
    assert ended.code == 0, ended.output
    assert_circle_stepped_over_the_second_day(project, "second")


THREE = """\
  first: {init_from: {stage: third}}
  second: {init_from: {stage: first}MORE}
  third: {init_from: {stage: second}}
"""


@pytest.mark.parametrize("otherwise", ["skip", "stop"])
def test_circle_of_three_goes_on_after_skip_in_its_middle(made: Made, otherwise: str) -> None:
    """The second stage has left the second day out, and the others have trained every day once."""
    project = disliking_the_second_day(made(THREE.replace("MORE", f", gates: [{GATE.replace('skip', otherwise)}]")))
    if otherwise == "stop":
        assert project.start(FILE).code == 1
        ended = project.run("resume", FILE, "--skip")
        assert ended.code == 0, ended.output
    else:
        start(project)
    seconds = [trained(project, "second", number) for number in range(3)]
    assert seconds == [[0, 0], [0, 0, 0, 2, 2], [0, 0, 0, 2, 2, 2, 3, 3]]
    assert origins(project, "first")[:3] == [None, "third 1", "third 1"]
    assert_audit_is_clean(project, 4, 3, 4)


def test_circle_after_day_vanished_behind_first_stage_goes_on(made: Made) -> None:
    shared = ONE_A_RUN.replace("  checks:", "  gaps: {then: skip}\n  checks:")
    project = made(THREE.replace("MORE", ", prepare: {function: operators.tiny:eat}"), shared)
    source = (project.root / "operators/tiny.py").read_text()
    eat = """

def eat():
    \"\"\"When the first stage has trained on the second day, and the second stage has not looked for it yet.\"\"\"
    note("eats", file="eaten.txt")
    if (ROOT / "eaten.txt").read_text().count("eats") == 2:
        (ROOT / "samples/2024-01-02").rename(ROOT / "away")
"""
    project.write("operators/tiny.py", source + eat)
    start(project)
    assert [len(project.checkpoints("tiny", stage)) for stage in ("first", "second", "third")] == [4, 3, 3]
    assert origins(project, "first") == [None, "third 1", "third 1", "third 2"]
    assert_audit_is_clean(project, 4, 3, 3)
