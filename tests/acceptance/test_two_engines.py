"""Two engines that know nothing of each other - two homes, two databases - train one chain in one store.

The ledger is all they share. Exactly one of them commits each split; the other is told so and changes nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live_project import LiveProject, Running
from tests.support.tiny_project import FILE, NAME, ROWS_A_DAY, expected_boundaries, model, tiny_project
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow

DAYS = 6


@pytest.fixture
def two(tmp_path: Path) -> tuple[LiveProject, LiveProject]:
    """Two projects, each with a home of its own, over the same samples and the same store."""
    first = tiny_project(tmp_path / "first", days=DAYS)
    settings = f'[checkpoints]\nstore = "{first.root / "checkpoints"}"\n'
    second = tiny_project(tmp_path / "second", settings=settings, days=DAYS, samples_of=first)
    return first, second


def _trains(project: LiveProject, running: Running) -> None:
    wait_for(lambda: any(words[0] == "holding" for words in project.journal()), lambda: running.output)


def _assert_clean(first: LiveProject) -> None:
    report = first.audit(NAME)
    assert (report.problems, report.gaps, report.duplicates) == ([], [], [])
    assert first.boundaries(NAME) == expected_boundaries(days=DAYS)
    rows, _ = model(first)
    assert sorted(rows.tolist()) == list(range(DAYS * ROWS_A_DAY))


def test_engines_on_one_chain_one_commits_and_other_is_fenced(two: tuple[LiveProject, LiveProject]) -> None:
    first, second = two
    for project in two:
        project.write("hold", "")
    winner, loser = first.begin_start(FILE), second.begin_start(FILE)
    _trains(first, winner)
    _trains(second, loser)
    (first.root / "hold").unlink()
    assert winner.wait().code == 0
    ledger = sorted((first.root / "checkpoints").glob("*/*/*/ledger/*.json"))
    before = [path.read_bytes() for path in ledger]

    (second.root / "hold").unlink()
    fenced = loser.wait()
    assert fenced.code == 1, fenced.output
    assert "this attempt trained from an empty chain, but chain tiny/main/main" in fenced.output
    assert "Nothing was changed" in fenced.output
    # trying the same commit again could never succeed: it is said at once
    assert sum(words[0] == "trained" for words in second.journal()) == 3
    assert "is tried again" not in fenced.output
    assert [path.read_bytes() for path in sorted((first.root / "checkpoints").glob("*/*/*/ledger/*.json"))] == before
    _assert_clean(first)

    again = second.start(FILE)
    assert again.code == 0, again.output
    assert "caught up" in again.output
    _assert_clean(first)


@pytest.mark.exhaustive
def test_engines_on_one_chain_go_on_until_caught_up(two: tuple[LiveProject, LiveProject]) -> None:
    first, _ = two
    one_a_run = (FILE, "--set", "split.partitions=1")
    ends = [project.begin_start(*one_a_run) for project in two]
    for project, running in zip(two, ends, strict=True):
        ended = running.wait()
        assert ended.code in (0, 1), ended.output
        while ended.code == 1:
            assert "Nothing was changed" in ended.output
            ended = project.start(*one_a_run)
    report = first.audit(NAME)
    assert (report.problems, report.gaps, report.duplicates) == ([], [], [])
    assert first.boundaries(NAME) == expected_boundaries(days=DAYS, each=1)
    rows, _ = model(first)
    assert sorted(rows.tolist()) == list(range(DAYS * ROWS_A_DAY))
