"""`nodes: 3`: three processes train one split, in step with each other over sockets; any of them is killed at any step,
the attempt is told to stop, the number of ranks changes: the model has seen each row once, in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.ranked_project import (
    FILE,
    assert_trained,
    begun,
    disturb,
    lay_out_ranked,
    outcomes,
    ranks_of_last_attempt,
)
from tests.support.live_project import LiveProject
from tests.support.ports import free_port
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def ranked(projects: Callable[..., LiveProject]) -> LiveProject:
    return lay_out_ranked(projects("ranked"))


@pytest.mark.exhaustive
def test_ranks_killed_at_each_step_train_each_row_once(ranked: LiveProject) -> None:
    disturb(ranked, "kill-1-0", "kill-0-1", "kill-2-2")
    ended = ranked.start(FILE)
    assert ended.code == 0, ended.output
    assert_trained(ranked)
    # ranks that were killed have used up no try
    assert set(outcomes(ranked)[:-1]) == {"part_lost"}
    assert outcomes(ranked)[-1] == "success"


@pytest.mark.exhaustive
def test_rank_that_fails_is_named_and_other_number_of_ranks_goes_on(ranked: LiveProject) -> None:
    # the first one has saved more than any before it: only the second one uses up a try
    disturb(ranked, "fail-1-1", "failagain-1-1")
    ended = ranked.start(FILE, "--set", "train.retries=0")
    assert ended.code == 1
    assert "ValueError: on purpose (rank 1 of 3, exit code 1)" in ended.output
    assert outcomes(ranked) == ["failed", "failed"]
    # another number of ranks goes on from what was saved
    ended = ranked.start(FILE, "--set", "train.nodes=2")
    assert ended.code == 0, ended.output
    assert_trained(ranked)
    assert begun(ranked) == [(0, 3)] * 3 + [(15, 3)] * 3 + [(15, 2)] * 2


@pytest.mark.exhaustive
def test_ranks_told_to_stop_save_and_go_on(ranked: LiveProject) -> None:
    disturb(ranked, "hold-0-1")
    running = ranked.begin_start(FILE)
    wait_for(
        lambda: not list((ranked.root / "disturbances").glob("hold*")) and len(ranked.journal()) == 3,
        "a rank that holds",
    )
    # what tells all processes of a job to stop tells the other ranks, too: the first one still gets to its save
    for rank in ranks_of_last_attempt(ranked)[1:]:
        os.kill(rank, signal.SIGTERM)
    running.process.send_signal(signal.SIGINT)
    running.wait()
    assert outcomes(ranked) == ["preempted"]
    ended = ranked.start(FILE)
    assert ended.code == 0, ended.output
    assert_trained(ranked)
    # what was gathered at the step in which it was told is in the save
    assert begun(ranked) == [(0, 3)] * 3 + [(30, 3)] * 3


@pytest.mark.exhaustive
def test_ranks_end_with_process_of_attempt_that_is_killed(ranked: LiveProject) -> None:
    disturb(ranked, "hold-0-1")
    running = ranked.begin_start(FILE)
    wait_for(
        lambda: not list((ranked.root / "disturbances").glob("hold*")) and len(ranked.journal()) == 3,
        "a rank that holds",
    )
    first, *_ = ranks_of_last_attempt(ranked)
    attempt = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(attempt, signal.SIGKILL)
    ended = running.wait()
    assert ended.code == 0, ended.output
    assert outcomes(ranked) == ["lost", "success"]
    assert_trained(ranked)


@pytest.mark.exhaustive
def test_ranks_over_http_train_each_row_once(ranked: LiveProject) -> None:
    settings = ranked.root / "configs" / "trainflow.toml"
    away = f'[executor]\ndefault = "away"\n[executors]\naway = {{type = "workload"}}\n[api]\nport = {free_port()}\n'
    settings.write_text(f"{settings.read_text()}\n{away}")
    ranked.environ["TRAINFLOW__API__ENABLED"] = "true"  # the port is its own
    disturb(ranked, "kill-2-1")
    ended = ranked.start(FILE)
    assert ended.code == 0, ended.output
    assert outcomes(ranked) == ["part_lost", "success"]
    assert_trained(ranked)
