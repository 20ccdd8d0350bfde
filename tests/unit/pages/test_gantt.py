"""Attempts over time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trainflow.pages.gantt import WIDTH, AttemptSpan, gantt

START = datetime(2024, 1, 1, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _span(task: str, start: float, end: float | None, number: int = 1) -> AttemptSpan:
    ended = None if end is None else _at(end)
    return AttemptSpan(task, number, "success" if ended else "running", _at(start - 1), _at(start), ended)


def test_gantt_of_what_has_not_begun_is_none() -> None:
    assert gantt([AttemptSpan("a", 1, "queued", START, None, None)], ["a"], START) is None


def test_long_wait_is_compressed_and_order_is_kept() -> None:
    drawn = gantt([_span("a", 0, 10), _span("b", 86_400, 86_420), _span("b", 86_430, None, 2)], ["a", "b"], _at(86_440))
    assert drawn is not None
    assert [wait.seconds for wait in drawn.waits] == [86_390, 10]
    assert [task for task, _ in drawn.labels] == ["a", "b"]
    xs = [bar.x for bar in drawn.bars]
    assert xs == sorted(xs)
    assert drawn.bars[-1].x + drawn.bars[-1].width <= WIDTH
    assert drawn.bars[1].width > drawn.bars[0].width
    assert drawn.bars[1].y == drawn.bars[2].y


def test_attempt_of_no_time_is_still_seen() -> None:
    drawn = gantt([_span("a", 0, 0)], ["a"], START)
    assert drawn is not None
    assert drawn.bars[0].width >= 2


def test_axis_says_how_long_after_the_beginning_whatever_was_compressed() -> None:
    drawn = gantt([_span("a", 0, 10), _span("b", 1000, 1010)], ["a", "b"], _at(1010))
    assert drawn is not None
    texts, places = [each.text for each in drawn.ticks], [each.x for each in drawn.ticks]
    assert (texts[0], texts[-1]) == ("0.0s", "16m50s")
    assert places == sorted(places)
    assert (places[0], places[-1]) == (drawn.left, WIDTH - 12)
    assert drawn.height > drawn.floor


def test_wait_in_the_triggerer_is_no_work_and_is_compressed() -> None:
    waits = [(_at(1), _at(3601)), (_at(3602), _at(7202))]
    drawn = gantt([AttemptSpan("a", 1, "success", _at(-1), _at(0), _at(7203), waits)], ["a"], _at(7203))
    assert drawn is not None
    assert [(bar.seconds, bar.waited_seconds) for bar in drawn.bars] == [(1, 1), (1, 3600), (1, 3600)]
    assert [wait.seconds for wait in drawn.waits] == [3600, 3600]
    # each begins where the wait ends that began where the one before ended
    assert [bar.wait_x for bar in drawn.bars[1:]] == [round(bar.x + bar.width, 1) for bar in drawn.bars[:-1]]


def test_wait_outside_of_its_attempt_is_cut_off() -> None:
    waits = [(_at(-5), _at(2)), (_at(8), _at(99))]
    drawn = gantt([AttemptSpan("a", 1, "success", _at(0), _at(0), _at(10), waits)], ["a"], _at(10))
    assert drawn is not None
    assert [bar.seconds for bar in drawn.bars] == [0, 6, 0]
