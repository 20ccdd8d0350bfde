"""Chaos: what happens to a process is drawn from the seed, and processes below read it from their environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainflow.failpoint import VARIABLE, Failpoints, PlannedKill, planned_kill

KINDS = ("engine", "worker", "attempt")

PROCESS = """
import sys
from trainflow.failpoint import enter, hit
enter(sys.argv[1])
for number in range(1000):
    print(number, flush=True)
    hit(f"step {number}")
"""


@pytest.mark.parametrize("kind", KINDS)
def test_failpoint_same_seed_draws_same_fates(kind: str) -> None:
    draws = [[planned_kill(seed, kind, number) for number in range(50)] for seed in (1, 1, 2)]  # type: ignore[arg-type]
    assert draws[0] == draws[1] != draws[2]
    assert any(draws[0])


@pytest.mark.parametrize("kind", KINDS)
def test_chaos_comes_to_end(kind: str) -> None:
    assert not any(planned_kill(seed, kind, 200 + number) for seed in range(20) for number in range(50))  # type: ignore[arg-type]


def test_attempts_are_also_asked_to_stop_and_engines_never() -> None:
    def signals(kind: str) -> set[int]:
        drawn = (planned_kill(seed, kind, number) for seed in range(20) for number in range(8))  # type: ignore[arg-type]
        return {each.signal for each in drawn if each}

    assert signals("attempt") == {signal.SIGKILL, signal.SIGTERM}
    assert signals("engine") == {signal.SIGKILL}


def test_process_dies_after_step_that_was_drawn_for_it(tmp_path: Path) -> None:
    failpoint = Failpoints(11, tmp_path)
    for ordinal in range(2):
        drawn = planned_kill(11, "engine", ordinal)
        assert isinstance(drawn, PlannedKill)
        died = subprocess.run(
            [sys.executable, "-c", PROCESS, "engine"],
            env={**os.environ, VARIABLE: failpoint.variable},
            capture_output=True,
            text=True,
        )
        assert died.returncode == -drawn.signal
        assert len(died.stdout.splitlines()) == drawn.steps
        kill = failpoint.kills()[ordinal]
        assert kill == ("engine", ordinal, f"step {drawn.steps - 1}", "SIGKILL")


def test_failpoint_without_variable_does_nothing(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", PROCESS, "engine"]
    lived = subprocess.run(command, env=kept, cwd=tmp_path, capture_output=True, text=True)
    assert lived.returncode == 0, lived.stderr
    assert len(lived.stdout.splitlines()) == 1000
    assert not list(tmp_path.iterdir())


def test_kills_are_read_back_in_order(tmp_path: Path) -> None:
    lines = [["attempt", 3, "commit: append", "SIGTERM"], ["engine", 0, "scheduler: hand over", "SIGKILL"]]
    (tmp_path / "kills").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [list(kill) for kill in Failpoints(1, tmp_path).kills()] == lines
