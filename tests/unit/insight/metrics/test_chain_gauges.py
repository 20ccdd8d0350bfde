"""The lag of a chain that has moved since its samples were looked at."""

from __future__ import annotations

import pytest

from trainflow.insight.metrics.chain_gauges import SampleLook, lag_since
from trainflow.samples.throughput import Lag
from trainflow.testing.chains import DAY, day

#: days 10 to 19 were ready when ten partitions were trained
LOOK = SampleLook(day(20), ready_until=day(20), lag=10, trained=10, holes_arrived=0, republished=0)


@pytest.mark.parametrize(
    ("next_day", "trained", "partitions"),
    [
        pytest.param(10, 10, 10, id="nothing happened"),
        pytest.param(14, 14, 6, id="went on"),
        pytest.param(14, 12, 8, id="went on over two holes"),
        pytest.param(20, 20, 0, id="caught up"),
        pytest.param(20, 18, 0, id="caught up over two holes"),
        pytest.param(22, 22, 0, id="went beyond what was seen"),
        pytest.param(5, 5, 15, id="was rewound"),
    ],
)
def test_lag_since_a_look_follows_the_chain(next_day: int, trained: int, partitions: int) -> None:
    days = max(0, 20 - next_day)
    assert lag_since(LOOK, day(next_day), trained) == Lag(partitions, days * DAY.total_seconds())
