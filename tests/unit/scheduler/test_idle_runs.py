from __future__ import annotations

import pytest

from trainflow.metadata.queries.live_queries import IdleRun
from trainflow.scheduler.idle_runs import IdleRuns

ONE, TWO = IdleRun(1, 3), IdleRun(2, 3)
ONE_LATER = IdleRun(1, 4)


@pytest.mark.parametrize(
    ("looks", "due"),
    [
        pytest.param([[ONE]], [set()], id="it has only just become idle"),
        pytest.param([[ONE], [ONE]], [set(), {1}], id="it was not gone on with"),
        pytest.param([[ONE], [], [ONE]], [set(), set(), set()], id="it was gone on with"),
        pytest.param([[ONE], [ONE_LATER], [ONE_LATER]], [set(), set(), {1}], id="it was decided, and is idle anew"),
        pytest.param([[ONE], [ONE], [ONE], [ONE]], [set(), {1}, set(), set()], id="it waits for another run"),
        pytest.param([[ONE], [ONE], [ONE_LATER], [ONE_LATER]], [set(), {1}, set(), {1}], id="once for each end"),
        pytest.param([[ONE], [ONE, TWO], [ONE, TWO]], [set(), {1}, {2}], id="each by itself"),
    ],
)
def test_idle_runs_due(looks: list[list[IdleRun]], due: list[set[int]]) -> None:
    idle = IdleRuns()
    assert [idle.due(found) for found in looks] == due
