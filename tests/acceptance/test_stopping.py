"""Ctrl-C, SIGTERM, a closed terminal, two terminals, an engine that dies: nothing is lost, nothing is done twice."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support.live_project import LiveProject, Running
from tests.support.tiny_project import FILE, NAME, assert_trained_exactly_once, tiny_project
from trainflow.testing.processes import Found, ProcessKind, wait_for

pytestmark = pytest.mark.slow

#: of the project `tiny`
DAYS = 9

IGNORES_BEING_STOPPED = """

def train_stubbornly(ctx):
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    return train(ctx)
"""


def hold(project: LiveProject, name: str = "hold") -> None:
    """Let the training function stop in the middle of its next split."""
    project.write(name, "")


def release(project: LiveProject, name: str = "hold") -> None:
    (project.root / name).unlink()


def holding(project: LiveProject, running: Running, *, times: int = 1) -> Found:
    """Wait until an attempt is held; its process."""

    def look() -> list[str] | None:
        if running.ended:
            raise AssertionError(f"ended ({running.process.returncode}):\n{running.output}")
        lines = [words for words in project.journal() if words[0] == "holding"]
        return lines[-1] if len(lines) >= times else None

    pid = int(wait_for(look, lambda: f"an attempt that holds:\n{running.output}\n{project.engine_log()}")[1])
    return next(found for found in project.processes() if found.pid == pid)


def beginnings(project: LiveProject) -> list[tuple[str, str]]:
    """(first day of the split, afresh or resumes) of each time the training function was called."""
    return [(words[2], words[4]) for words in project.journal() if words[0] == "begins"]


@pytest.mark.exhaustive
def test_stop_once_ends_in_good_order_and_next_start_goes_on(tiny: LiveProject) -> None:
    hold(tiny)
    # a warm one may have its engine go on with the attempt while it reads the file, and is stopped before it begins
    tiny.cold = True
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for times, number in enumerate(signals, 1):
        running = tiny.begin_start(FILE)
        attempt = holding(tiny, running, times=times)
        if number is signal.SIGINT:
            running.control_c()
        else:
            running.signal(number)
        ended = running.wait()

        assert ended.code == 130, ended.output
        said = [
            "stopped in good order",
            f"{NAME}: nothing is committed yet",
            f"go on from there: trainflow start {FILE}",
        ]
        assert ended.output.splitlines()[-3:] == said, ended.output
        assert not attempt.alive
        tiny.wait_until_quiet()
        assert tiny.committed(NAME) == 0

    release(tiny)
    ended = tiny.start(FILE)
    assert ended.code == 0, ended.output
    assert_trained_exactly_once(tiny, DAYS)
    # each went on inside the split
    assert beginnings(tiny)[:4] == [("2024-01-01", "afresh"), *[("2024-01-01", "resumes")] * len(signals)]


def test_stop_twice_ends_at_once(tiny: LiveProject) -> None:
    tiny.write("operators/tiny.py", (tiny.root / "operators/tiny.py").read_text() + IGNORES_BEING_STOPPED)
    tiny.write("configs/trainflow.toml", "[tracking]\nenabled = false\n[engine]\nstop_grace_seconds = 600\n")
    hold(tiny)
    override = ("--set", "train.function=operators.tiny:train_stubbornly")
    running = tiny.begin_start(FILE, *override)
    attempt = holding(tiny, running)
    running.control_c()
    wait_for(lambda: "stopping attempt" in tiny.engine_log(), "the attempt to be told")
    assert attempt.alive
    running.control_c()
    ended = running.wait()

    assert ended.code == 130, ended.output
    tiny.wait_until_quiet()
    release(tiny)
    ended = tiny.start(FILE, *override)
    assert ended.code == 0, ended.output
    assert_trained_exactly_once(tiny, DAYS)


def test_stop_while_file_is_read_is_heard(tiny: LiveProject) -> None:
    tiny.write("pipelines/slow.py", "from operators.tiny import hold, note\nnote('reads')\nhold('reading')\n")
    hold(tiny, "reading")
    running = tiny.begin_start("pipelines/slow.py")
    wait_for(lambda: ["reads"] in tiny.journal(), lambda: running.output)
    running.control_c()
    assert running.wait().code == 130
    release(tiny, "reading")
    tiny.wait_until_quiet()


def test_attempt_outlives_its_engine_and_next_one_adopts_it(tiny: LiveProject) -> None:
    hold(tiny)
    first = tiny.begin_start(FILE)
    attempt = holding(tiny, first)
    first.kill()

    second = tiny.begin_start(FILE)
    wait_for(lambda: "1 still run" in tiny.engine_log(), lambda: second.output)
    assert attempt.alive
    release(tiny)
    ended = second.wait()

    assert ended.code == 0, ended.output
    assert_trained_exactly_once(tiny, DAYS)
    assert [words[1] for words in tiny.journal() if words[0] == "holding"] == [str(attempt.pid)]
    assert_each_split_was_trained_once(tiny)


@pytest.mark.exhaustive
def test_work_that_was_finished_while_no_engine_lived_is_used(tiny: LiveProject) -> None:
    hold(tiny)
    first = tiny.begin_start(FILE)
    attempt = holding(tiny, first)
    first.kill()
    release(tiny)
    wait_for(lambda: not attempt.alive, "the attempt to come to its end")
    assert len(list(tiny.home.outcomes.iterdir())) == 1

    ended = tiny.start(FILE)

    assert ended.code == 0, ended.output
    assert_trained_exactly_once(tiny, DAYS)
    assert_each_split_was_trained_once(tiny)
    assert list(tiny.home.outcomes.iterdir()) == []


def assert_each_split_was_trained_once(project: LiveProject) -> None:
    """Not one call of the training function more than there are splits."""
    days = [day for day, _ in beginnings(project)]
    assert len(days) == len(set(days)) == DAYS / 3
    trained = [words[2] for words in project.journal() if words[0] == "trained"]
    assert len(trained) == len(set(trained)) == DAYS


@pytest.mark.exhaustive
def test_start_twice_at_once_gives_one_engine_and_one_follower(tiny: LiveProject) -> None:
    both = [tiny.begin_start(FILE), tiny.begin_start(FILE)]
    ended = [running.wait() for running in both]

    assert [each.code for each in ended] == [0, 0], ended
    followed = [bool(re.search(r"an engine is alive \(pid \d+\): following it", each.output)) for each in ended]
    assert sorted(followed) == [False, True]
    assert all("caught up" in each.output for each in ended)
    assert_trained_exactly_once(tiny, DAYS)
    assert_each_split_was_trained_once(tiny)
    tiny.wait_until_quiet()


@pytest.mark.exhaustive
def test_second_start_follows_another_pipeline_through_same_engine(tiny: LiveProject) -> None:
    other = (tiny.root / FILE).read_text().replace("pipeline: tiny", "pipeline: other")
    tiny.write("pipelines/other.yaml", other)
    hold(tiny)
    first = tiny.begin_start(FILE)
    holding(tiny, first)
    second = tiny.begin_start("pipelines/other.yaml")
    second.wait_for_output("following it")
    holding(tiny, second, times=2)
    release(tiny)

    assert [first.wait().code, second.wait().code] == [0, 0], second.output
    for name in (NAME, "other"):
        assert_trained_exactly_once(tiny, DAYS, name=name)


@pytest.mark.exhaustive
def test_ctrl_c_in_terminal_that_follows_leaves_engine_alone(tiny: LiveProject) -> None:
    hold(tiny)
    engine = tiny.begin_start(FILE)
    holding(tiny, engine)
    dependent = tiny.begin_start(FILE)
    dependent.wait_for_output("following it")
    wait_for(lambda: "follower" in service_kinds(tiny), "the follower to be known")
    dependent.control_c()
    ended = dependent.wait()
    assert ended.code == 130, ended.output
    assert "the engine goes on" in ended.output
    release(tiny)
    assert engine.wait().code == 0
    assert_trained_exactly_once(tiny, DAYS)


def service_kinds(project: LiveProject) -> list[str]:
    import sqlite3

    database = sqlite3.connect(project.home.database)
    try:
        return [kind for (kind,) in database.execute("select kind from service")]
    finally:
        database.close()


@pytest.mark.exhaustive
def test_start_detached_then_stop_ends_engine(tiny: LiveProject) -> None:
    hold(tiny)
    detached = tiny.start(FILE, "--detach")
    assert detached.code == 0, detached.output
    assert "training in the background" in detached.output
    engine = tiny.wait_for_process(ProcessKind.COMMAND)
    wait_for(lambda: any(words[0] == "holding" for words in tiny.journal()), "an attempt that holds")

    stopped = tiny.run("stop")
    assert stopped.code == 0, stopped.output
    wait_for(lambda: not engine.alive, "the engine to end")
    tiny.wait_until_quiet()
    release(tiny)

    assert tiny.start(FILE, "--detach").code == 0
    tiny.wait_until_quiet()
    assert_trained_exactly_once(tiny, DAYS)


def test_start_detached_with_wrong_file_fails_at_once(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "wrong", days=0, pipeline="pipeline: tiny\nsampels: {}\n")
    ended = project.start(FILE, "--detach")
    assert ended.code == 2, ended.output
    assert "sampels" in ended.output
    assert project.run("stop").code != 130
    project.wait_until_quiet()
