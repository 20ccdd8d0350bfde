"""`trainflow start --failpoint SEED`: what a user runs to see for himself that nothing is trained twice."""

from __future__ import annotations

import pytest

from tests.support.live_project import LiveProject
from tests.support.tiny_project import FILE, NAME, ROWS_A_DAY, expected_boundaries, model
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [3, 2])
def test_chaos_ends_with_clean_audit(tiny: LiveProject, seed: int) -> None:
    ended = tiny.start(FILE, "--failpoint", str(seed), "--set", "split.partitions=1")
    assert ended.code == 0, ended.output
    assert "the engine was killed after '" in ended.output
    assert " attempts were killed:" in ended.output
    assert "duplicates  0" in ended.output
    assert tiny.boundaries(NAME) == expected_boundaries(days=9, each=1)
    rows, _ = model(tiny)
    assert sorted(rows.tolist()) == list(range(9 * ROWS_A_DAY))
    assert not list(tiny.home.path.glob("failpoint-*"))
    tiny.wait_until_quiet()


@pytest.mark.exhaustive
def test_chaos_ends_with_exit_code_of_training(tiny: LiveProject) -> None:
    ended = tiny.start(FILE, "--failpoint", "1", "--set", "gates=[loss < 0]")
    assert ended.code == 1, ended.output
    assert "loss < 0" in ended.output


def test_chaos_and_background_exclude_each_other(tiny: LiveProject) -> None:
    ended = tiny.start(FILE, "--failpoint", "1", "--detach")
    assert ended.code == 2
    assert "leave out --detach" in ended.output


@pytest.mark.exhaustive
def test_chaos_leaves_engine_alone_that_it_has_not_started(tiny: LiveProject) -> None:
    tiny.write("hold", "")
    running = tiny.begin_start(FILE)
    wait_for(lambda: any(words[0] == "holding" for words in tiny.journal()), lambda: running.output)
    ended = tiny.start(FILE, "--failpoint", "1")
    assert ended.code == 2
    assert "trainflow stop" in ended.output
    (tiny.root / "hold").unlink()
    assert running.wait().code == 0
