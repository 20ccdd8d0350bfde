"""Attempts of a run over time, a bar for each stretch of work between waits; long waits are compressed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from trainflow.humanize import duration

WIDTH = 960.0
ROW = 24.0
_LEFT = 176.0
_RIGHT = 12.0
#: a wait that is longer than this share of all work is drawn as long as that
_LONGEST_WAIT = 0.08
_SHORTEST_BAR = 2.0
_AXIS = 20.0
#: moments on the axis, the beginning and the end among them
_TICKS = 5


class AttemptSpan(NamedTuple):
    """An attempt: queued, started, ended; None: not yet. `waits`: when it waited in the triggerer, in order."""

    task_id: str
    try_number: int
    outcome: str
    queued: datetime | None
    started: datetime | None
    ended: datetime | None
    waits: Sequence[tuple[datetime, datetime]] = ()


class Bar(NamedTuple):
    """A stretch of work as it is drawn: the wait before it (for a slot, or in the triggerer), and itself."""

    span: AttemptSpan
    y: float
    wait_x: float
    x: float
    width: float
    seconds: float
    waited_seconds: float


class CompressedWait(NamedTuple):
    """A stretch without work that was compressed."""

    x: float
    width: float
    seconds: float


class TimeTick(NamedTuple):
    """A moment on the axis: how long after the beginning."""

    x: float
    text: str


class Gantt(NamedTuple):
    """All attempts of a run. `labels`: (task, y) of each row; `floor`: where the axis is."""

    bars: list[Bar]
    waits: list[CompressedWait]
    labels: list[tuple[str, float]]
    ticks: list[TimeTick]
    floor: float
    height: float
    left: float = _LEFT
    width: float = WIDTH


def gantt(spans: Sequence[AttemptSpan], order: Sequence[str], now: datetime) -> Gantt | None:
    """Draw attempts, a row for each task in `order`; None where none has begun."""
    begun = [each for each in spans if each.started is not None]
    if not begun:
        return None
    stretches = [(each, *stretch) for each in begun for stretch in _at_work(each, now)]
    scale = _Timeline([(start, end) for _, _, start, end in stretches])
    tasks = [task for task in order if any(each.task_id == task for each in begun)]
    rows = {task: 4 + place * ROW for place, task in enumerate(tasks)}
    bars = []
    for each, since, start, end in stretches:
        x = scale(start)
        width = max(_SHORTEST_BAR, scale(end) - x)
        bars.append(Bar(each, rows.get(each.task_id, 4), scale(since), x, round(width, 1), end - start, start - since))
    floor = 8 + len(rows) * ROW
    return Gantt(bars, scale.waits, list(rows.items()), scale.ticks, floor, floor + _AXIS)


def _at_work(span: AttemptSpan, now: datetime) -> list[tuple[float, float, float]]:
    """(when it began to wait, when it went on, until when), for each stretch in which an attempt was at work."""
    start, end = _seconds(span.started), _seconds(span.ended or now)
    found = []
    since = min(start, _seconds(span.queued or span.started))
    for first, last in span.waits:
        # clocks of two hosts: a wait lies within its attempt
        until = min(max(_seconds(first), start), end)
        found.append((since, start, until))
        since, start = until, min(max(_seconds(last), until), end)
    return [*found, (since, start, end)]


def _seconds(moment: datetime | None) -> float:
    assert moment is not None
    return moment.timestamp()


class _Timeline:
    """Time as it is drawn: what is between two stretches of work is as long as `_LONGEST_WAIT` of it at most."""

    def __init__(self, stretches: Iterable[tuple[float, float]]) -> None:
        busy: list[list[float]] = []
        for start, end in sorted(stretches):
            if busy and start <= busy[-1][1]:
                busy[-1][1] = max(busy[-1][1], end)
            else:
                busy.append([start, end])
        work = sum(end - start for start, end in busy) or 1.0
        longest = work * _LONGEST_WAIT
        #: (moment, its place in drawn seconds)
        self._knots: list[tuple[float, float]] = []
        self._compressed: list[tuple[float, float, float]] = []
        drawn, before = 0.0, busy[0][0]
        for start, end in busy:
            wait = start - before
            shown = min(wait, longest)
            if wait > longest:
                self._compressed.append((drawn, drawn + shown, wait))
            drawn += shown
            self._knots.append((start, drawn))
            drawn += end - start
            self._knots.append((end, drawn))
            before = end
        self._total = drawn or 1.0

    @property
    def waits(self) -> list[CompressedWait]:
        """What was compressed."""
        return [
            CompressedWait(self._place(a), round(self._place(b) - self._place(a), 1), wait)
            for a, b, wait in self._compressed
        ]

    @property
    def ticks(self) -> list[TimeTick]:
        """Moments at even distances, as long after the beginning as they are."""
        first = self._knots[0][0]
        places = (self._total * number / (_TICKS - 1) for number in range(_TICKS))
        return [TimeTick(self._place(each), duration(self._moment(each) - first)) for each in places]

    def _moment(self, drawn: float) -> float:
        """The inverse of `__call__`, before it is placed."""
        for (start, since), (end, until) in zip(self._knots, self._knots[1:], strict=False):
            if drawn <= until:
                share = (drawn - since) / (until - since) if until > since else 1.0
                return start + share * (end - start)
        return self._knots[-1][0]

    def __call__(self, moment: float) -> float:
        first, first_drawn = self._knots[0]
        if moment <= first:
            return self._place(first_drawn)
        for (start, drawn), (end, until) in zip(self._knots, self._knots[1:], strict=False):
            if moment <= end:
                share = (moment - start) / (end - start) if end > start else 1.0
                return self._place(drawn + share * (until - drawn))
        return self._place(self._knots[-1][1])

    def _place(self, drawn: float) -> float:
        return round(_LEFT + drawn / self._total * (WIDTH - _LEFT - _RIGHT), 1)
