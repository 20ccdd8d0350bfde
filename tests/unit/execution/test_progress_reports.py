"""What an attempt reports: rarely sent, bounded, and all of it fit to be kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from trainflow.clock import ManualClock
from trainflow.execution.progress_reports import CurveRecorder, ProgressReporter, shown_name
from trainflow.messages.execution_api import LONGEST_METRIC_NAME, MOST_CURVE_POINTS, MOST_CURVES, Progress
from trainflow.messages.workload import AttemptKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MILLISECONDS = int(NOW.timestamp() * 1000)


class Told:
    """A reporter, and what it has sent."""

    def __init__(self) -> None:
        self.messages: list[Progress] = []
        self.clock = ManualClock(NOW)
        self.reporter = ProgressReporter(AttemptKey("a", 0), self._tell, self.clock)

    def _tell(self, message: Progress) -> None:
        # as the control plane reads it: what is too large for it, or no JSON, raises
        self.messages.append(msgspec.json.decode(msgspec.json.encode(message), type=Progress))

    def report(self, done: float, **metrics: float) -> None:
        self.reporter.report(done, None, "rows", metrics, None)

    @property
    def curves(self) -> list[float]:
        """How far the attempt was at each message that had curves."""
        return [message.done for message in self.messages if message.curves]


@pytest.mark.parametrize("reports", [1, 2, MOST_CURVE_POINTS, MOST_CURVE_POINTS + 1, 10 * MOST_CURVE_POINTS + 7])
def test_curve_is_bounded_and_has_its_first_and_newest_point(reports: int) -> None:
    recorder = CurveRecorder()
    for number in range(reports):
        recorder.add(number, {"loss": 1.0 / (number + 1)}, number / 1000)
    points = recorder.curves(0.0)["loss"]
    assert len(points) <= MOST_CURVE_POINTS + 1
    assert (points[0], points[-1]) == ((0, 1.0, 0), (reports - 1, 1.0 / reports, reports - 1))
    steps = [done for done, _, _ in points]
    assert steps == sorted(set(steps))
    if reports <= MOST_CURVE_POINTS:
        assert len(points) == reports


def test_curves_of_many_metrics_share_their_points() -> None:
    recorder = CurveRecorder()
    for number in range(1_000):
        recorder.add(number, {f"m{each}": 0.5 for each in range(100)}, number)
    curves = recorder.curves(0.0)
    assert list(curves) == [f"m{each}" for each in range(MOST_CURVES)]
    assert sum(map(len, curves.values())) <= 1_000 + MOST_CURVES
    assert len(msgspec.json.encode(curves)) < 64 << 10


def test_thousand_reports_a_second_send_four_messages_and_curves_ever_more_rarely() -> None:
    told = Told()
    for number in range(120_000):
        told.report(number, loss=1.0)
        told.clock.advance(timedelta(milliseconds=1))
    assert len(told.messages) == 480
    assert told.curves == [0, 1_000, 3_000, 7_000, 15_000, 31_000, 61_000, 91_000]
    assert told.messages[-1].metrics == {"loss": 1.0}


def test_first_report_is_a_curve_and_a_silent_training_sends_none_again() -> None:
    told = Told()
    told.report(5, loss=0.25)
    told.reporter.flush()
    assert [message.curves for message in told.messages] == [{"loss": [(5.0, 0.25, MILLISECONDS)]}]


def test_attempt_without_metrics_has_no_curves() -> None:
    told = Told()
    told.report(1)
    assert told.messages[0].curves == {}
    assert told.reporter.curves() == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_a_point_without_value(value: float) -> None:
    told = Told()
    told.report(1, loss=value)
    assert told.messages[0].metrics == {"loss": None}
    assert told.messages[0].curves == {"loss": [(1.0, None, MILLISECONDS)]}


def test_how_far_it_is_stays_where_it_was_when_it_is_no_number() -> None:
    told = Told()
    told.report(3, loss=1.0)
    told.clock.advance(timedelta(seconds=5))
    told.reporter.report(float("nan"), float("inf"), "rows", {"loss": 0.5}, None)
    assert (told.messages[-1].done, told.messages[-1].total) == (3.0, None)
    assert [done for done, _, _ in told.messages[-1].curves["loss"]] == [3.0, 3.0]


def test_names_are_cut_apart_and_hold_no_secret() -> None:
    told = Told()
    long = "x" * 10_000
    told.report(1, **{f"{long}a": 1.0, f"{long}b": 2.0, "at postgres://me:hunter2secret@db": 3.0, "null\x00": 4.0})
    names = list(told.messages[0].metrics)
    assert len(set(names)) == 4
    assert max(map(len, names)) <= LONGEST_METRIC_NAME
    assert list(told.messages[0].curves) == names
    assert "hunter2secret" not in "".join(names)
    assert "\x00" not in "".join(names)
    assert shown_name("loss") == "loss"


def test_message_of_any_number_of_metrics_is_bounded() -> None:
    told = Told()
    told.report(1, **{f"{number:06}" * 100: 1.0 for number in range(10_000)})
    assert len(told.messages[0].metrics) == 100
    assert len(msgspec.json.encode(told.messages[0])) < 100_000


def test_what_is_waited_for_is_told_beside_how_far_it_is() -> None:
    told = Told()
    told.report(7, loss=1.0)
    told.reporter.report_waiting("the store")
    told.reporter.report_waiting(None)
    assert [(message.done, message.note) for message in told.messages] == [(7.0, None), (7.0, "the store"), (7.0, None)]
