"""How long a store may take to answer before a pipeline is begun."""

from __future__ import annotations

import pytest

from trainflow.storage.reachability import answer_seconds


@pytest.mark.parametrize(
    ("taken", "computed", "times"),
    [(1.0, 1.0, 1.0), (0.9, 1.0, 1.0), (3.0, 1.0, 3.0), (60.0, 1.0, 5.0), (1.0, 0.0, 1.0)],
)
def test_answer_seconds_are_more_where_the_machine_is_busy(taken: float, computed: float, times: float) -> None:
    assert answer_seconds(2.5, taken, computed) == pytest.approx(2.5 * times)
