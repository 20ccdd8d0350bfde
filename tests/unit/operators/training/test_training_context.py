"""Curves of a training: bounded, with their ends."""

from __future__ import annotations

import pytest

from trainflow.operators.training.training_context import MOST_POINTS, ProgressCurve


@pytest.mark.parametrize("reports", [1, 2, MOST_POINTS, MOST_POINTS + 1, 10 * MOST_POINTS + 7])
def test_curve_is_bounded_and_has_its_first_and_newest_point(reports: int) -> None:
    curve = ProgressCurve()
    for number in range(reports):
        curve.add(number, {"loss": 1.0 / (number + 1)}, number)
    points = curve.points()["loss"]
    assert len(points) <= MOST_POINTS + 1
    assert (points[0][0], points[-1][0]) == (0, reports - 1)
    steps = [done for done, _, _ in points]
    assert steps == sorted(set(steps))
    if reports <= MOST_POINTS:
        assert len(points) == reports


def test_curve_without_metrics_is_nothing() -> None:
    curve = ProgressCurve()
    curve.add(1, None, 0)
    assert curve.points() == {}
