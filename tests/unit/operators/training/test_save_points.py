"""When a trainer's save points are written, what they raise when it is told to stop, and what comes back later."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trainflow.clock import ManualClock
from trainflow.errors import InputError, StoreFailure, TaskError
from trainflow.operators.training.save_points import NoSaves, Saved, SavePoints, Write, rows_of
from trainflow.task_signals import TaskPreempted

NOW = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class FakeSaves:
    """Keeps positions; each takes `seconds` to write."""

    def __init__(self, clock: ManualClock, saved: Saved | None = None) -> None:
        self.rows: list[int] = []
        self.seconds = 0.0
        self.error: BaseException | None = None
        self.looked = 0
        self._clock = clock
        self._saved = saved

    def newest(self) -> Saved | None:
        self.looked += 1
        return self._saved

    def report(self) -> None:
        """Nothing is under way."""

    def put(self, position: dict[str, Any], state: dict[str, Any], write: Write) -> None:
        self._clock.advance(timedelta(seconds=self.seconds))
        if self.error is not None:
            raise self.error
        self.rows.append(position["row"])


class Told:
    """Told to stop, or not."""

    requested = False
    held = 0

    def hold(self) -> None:
        self.held += 1


class Bench:
    def __init__(self, saved: Saved | None = None) -> None:
        self.clock = ManualClock(NOW)
        self.page_source = FakeSaves(self.clock, saved)
        self.stop = Told()
        self.points = SavePoints(self.page_source, self.stop, self.clock, logging.getLogger("bench"))

    def save(self, row: int, every: float = 60.0, **state: Any) -> bool:
        return self.points.save({"row": row}, lambda folder: None, state, every)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_point_is_written_when_it_is_time(bench: Bench) -> None:
    assert [bench.save(row) for row in (1, 2)] == [False, False]
    bench.clock.advance(MINUTE)
    assert bench.save(3)
    assert not bench.save(4)
    bench.clock.advance(MINUTE)
    assert bench.save(5)
    assert bench.page_source.rows == [3, 5]


def test_zero_seconds_is_each_time(bench: Bench) -> None:
    bench.page_source.seconds = 100.0
    assert [bench.save(row, every=0) for row in (1, 2, 3)] == [True] * 3


def test_saving_that_takes_long_is_done_less_often(bench: Bench) -> None:
    bench.page_source.seconds = 30.0
    bench.clock.advance(MINUTE)
    assert bench.save(1)
    bench.clock.advance(4 * MINUTE)
    assert not bench.save(2)
    bench.clock.advance(MINUTE)
    assert bench.save(3)


def test_save_same_position_is_not_written_again(bench: Bench) -> None:
    assert [bench.save(5, every=0), bench.save(5, every=0)] == [True, True]
    assert bench.page_source.rows == [5]
    assert bench.save(5, every=0, loss=0.5)
    assert bench.page_source.rows == [5, 5]


def test_save_before_first_row_is_nothing(bench: Bench) -> None:
    assert not bench.save(0, every=0)
    assert bench.page_source.rows == []


def test_save_when_told_to_stop_is_written_and_preempts(bench: Bench) -> None:
    assert not bench.save(1)
    bench.stop.requested = True
    assert bench.points.stopping
    with pytest.raises(TaskPreempted, match=r"row 2 of the split \(saved\)"):
        bench.save(2)
    assert bench.page_source.rows == [2]


def test_save_when_told_to_stop_is_not_written_twice(bench: Bench) -> None:
    bench.save(1, every=0)
    bench.stop.requested = True
    with pytest.raises(TaskPreempted, match="saved"):
        bench.save(1)
    assert bench.page_source.rows == [1]


def test_save_free_trainer_is_interrupted_and_saving_one_is_not(bench: Bench) -> None:
    assert bench.points.saved is None
    assert bench.stop.held == 0
    bench.save(1)
    bench.save(2)
    assert bench.stop.held == 1


def test_asking_whether_to_stop_is_enough(bench: Bench) -> None:
    assert not bench.points.stopping
    assert bench.stop.held == 1


def test_store_that_fails_does_not_end_training(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.page_source.error = StoreFailure("the store is full", location="here")
    assert not bench.save(1, every=0)
    assert "training goes on: the store is full" in caplog.text
    # not at each batch again
    assert not bench.save(2)
    bench.page_source.error = None
    assert bench.save(3, every=0)
    bench.stop.requested, bench.page_source.error = True, StoreFailure("full", location="here")
    with pytest.raises(TaskPreempted, match="not saved"):
        bench.save(4)


def test_save_error_of_trainer_is_raised(bench: Bench) -> None:
    bench.page_source.error = ValueError("bad weights")
    with pytest.raises(ValueError, match="bad weights"):
        bench.save(1, every=0)


def test_save_earlier_is_looked_up_once_when_asked(tmp_path: Path) -> None:
    bench = Bench(Saved({"row": 7}, tmp_path, {"loss": 1.0}))
    assert bench.page_source.looked == 0
    assert bench.points.saved is bench.points.saved
    assert bench.page_source.looked == 1
    assert bench.save(7, every=0, loss=1.0)
    assert bench.page_source.rows == []


@pytest.mark.parametrize("position", [{}, {"row": -1}, {"row": "3"}, {"row": True}, {"row": 1.5}, 5, None])
def test_save_position_of_wrong_type_is_refused(bench: Bench, position: Any) -> None:
    for points in (bench.points, NoSaves()):
        with pytest.raises(InputError, match="'row' counts the rows"):
            points.save(position, lambda folder: None, None, 60.0)


def test_save_value_without_json_form_is_refused_at_first_point(bench: Bench) -> None:
    for points in (bench.points, NoSaves()):
        with pytest.raises(TaskError, match="no form in JSON"):
            points.save({"row": 1}, lambda folder: None, {"x": object()}, 60.0)


def test_save_outside_pipeline_does_nothing() -> None:
    points = NoSaves()
    assert (points.saved, points.stopping) == (None, False)
    assert not points.save({"row": 1}, lambda folder: pytest.fail("written"), {"x": 1}, 0)


def test_rows_of_position_of_batches() -> None:
    assert rows_of({"split": "sha256:…", "seed": 1, "row": 12}) == 12
