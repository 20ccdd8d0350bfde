from __future__ import annotations

import pytest

from trainflow.metadata.queries.live_queries import StandingRun
from trainflow.scheduler.standing_runs import StandingRuns

ONE, TWO = StandingRun(1, 3), StandingRun(2, 3)
ONE_LATER = StandingRun(1, 4)


@pytest.mark.parametrize(
    ("looks", "due"),
    [
        pytest.param([[ONE]], [set()], id="it was just now that it came to stand"),
        pytest.param([[ONE], [ONE]], [set(), {1}], id="nobody has gone on with it"),
        pytest.param([[ONE], [], [ONE]], [set(), set(), set()], id="somebody has"),
        pytest.param([[ONE], [ONE_LATER], [ONE_LATER]], [set(), set(), {1}], id="somebody has, and it stands anew"),
        pytest.param([[ONE], [ONE], [ONE], [ONE]], [set(), {1}, set(), set()], id="it waits for another run"),
        pytest.param([[ONE], [ONE], [ONE_LATER], [ONE_LATER]], [set(), {1}, set(), {1}], id="once for each end"),
        pytest.param([[ONE], [ONE, TWO], [ONE, TWO]], [set(), {1}, {2}], id="each by itself"),
    ],
)
def test_standing_runs_due(looks: list[list[StandingRun]], due: list[set[int]]) -> None:
    standing = StandingRuns()
    assert [standing.due(found) for found in looks] == due
