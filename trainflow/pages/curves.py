"""Lines as SVG: metrics over the watermark, metrics inside a run, and sparklines. Pure arithmetic; as many points as a
screen has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from trainflow.humanize import number
from trainflow.messages.execution_api import MetricCurves

#: of the drawing, in its own units
WIDTH, HEIGHT = 960.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 12.0, 12.0, 28.0
#: points of a line; more are not told apart
_MOST_POINTS = 600
#: events on a drawing, the newest; where each checkpoint is promoted, a mark at each would hide the line
_MOST_MARKS = 8
_DAY = 86_400
_MOST_DRAWN = 1e300


class CurvePoint(NamedTuple):
    """A checkpoint on a line. `number` is what people call it."""

    x: float
    y: float
    value: float
    at: datetime
    number: int


class Line(NamedTuple):
    """A metric of a branch. `path`: of an SVG path; `points`: those that can be pointed at."""

    name: str
    path: str
    points: list[CurvePoint]


class Tick(NamedTuple):
    """A place on an axis, and what is written there."""

    position: float
    text: str


class Limit(NamedTuple):
    """A gate's limit."""

    y: float
    text: str


class Mark(NamedTuple):
    """An event, at a place in time."""

    x: float
    text: str


class Chart(NamedTuple):
    """A drawing of one metric, of as many branches as are compared. `earlier_marks`: events that are not drawn."""

    metric: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    limits: list[Limit]
    marks: list[Mark]
    earlier_marks: int

    @property
    def floor(self) -> float:
        """Where the axis of time is."""
        return HEIGHT - _BOTTOM

    @property
    def left(self) -> float:
        """Where the axis of values is."""
        return _LEFT

    @property
    def right(self) -> float:
        """Where the drawing ends."""
        return WIDTH - _RIGHT


#: (watermark, value, the checkpoint's number)
Measured = tuple[datetime, float, int]


def chart(
    metric: str,
    measured: Mapping[str, Sequence[Measured]],
    limits: Sequence[tuple[float, str]] = (),
    marks: Iterable[tuple[datetime, str]] = (),
) -> Chart | None:
    """A metric over time; None where no value is finite."""
    lines = {name: [each for each in points if math.isfinite(each[1])] for name, points in measured.items()}
    lines = {name: sorted(points, key=lambda each: each[0]) for name, points in lines.items() if points}
    if not lines:
        return None
    moments = [each[0].timestamp() for points in lines.values() for each in points]
    lines = {name: [(at, _drawable(value), of) for at, value, of in points] for name, points in lines.items()}
    values = [each[1] for points in lines.values() for each in points]
    across = _Scale(min(moments), max(moments), _LEFT, WIDTH - _RIGHT)
    bottom, top = _padded(min(values), max(values), [limit for limit, _ in limits])
    up = _Scale(bottom, top, HEIGHT - _BOTTOM, _TOP)
    events = sorted(
        (each for each in marks if across.low <= each[0].timestamp() <= across.high), key=lambda each: each[0]
    )
    return Chart(
        metric,
        [_line(name, _thinned(points), across, up) for name, points in lines.items()],
        [Tick(across(each), text) for each, text in _dates(min(moments), max(moments))],
        [Tick(up(each), number(each)) for each in _steps(bottom, top)],
        [Limit(up(limit), text) for limit, text in limits if bottom <= limit <= top],
        [Mark(across(at.timestamp()), text) for at, text in events[-_MOST_MARKS:]],
        max(0, len(events) - _MOST_MARKS),
    )


class CurveSummary(NamedTuple):
    """What there is to say of the curve of an attempt: for those who do not see it."""

    metric: str
    attempt: str
    points: int
    done: float
    first: float | None
    newest: float | None
    lowest: float | None
    highest: float | None


class ProgressCharts(NamedTuple):
    """The metrics that attempts reported while they ran, a drawing each."""

    charts: list[Chart]
    summaries: list[CurveSummary]


def progress_charts(attempts: Mapping[str, MetricCurves]) -> ProgressCharts:
    """What attempts (by their names) reported, over how far each was: an attempt that another one followed is a line of
    its own. A line is interrupted where the metric was no number, and a mark says where that began."""
    metrics = list(dict.fromkeys(metric for curves in attempts.values() for metric in curves))
    told = {
        metric: {name: curves[metric] for name, curves in attempts.items() if curves.get(metric)} for metric in metrics
    }
    charts = [_progress_chart(metric, lines) for metric, lines in told.items() if lines]
    summaries = [_summary(metric, name, points) for metric, lines in told.items() for name, points in lines.items()]
    return ProgressCharts(charts, summaries)


#: (done, value or None, milliseconds)
_Told = Sequence[tuple[float, float | None, int]]


def _progress_chart(metric: str, lines: Mapping[str, _Told]) -> Chart:
    dones = [_drawable(point[0]) for points in lines.values() for point in points]
    values = [_drawable(value) for points in lines.values() for _, value, _ in points if value is not None] or [0.0]
    across = _Scale(min(dones), max(dones), _LEFT, WIDTH - _RIGHT)
    bottom, top = _padded(min(values), max(values), [])
    up = _Scale(bottom, top, HEIGHT - _BOTTOM, _TOP)
    missing = [(name, done) for name, points in lines.items() for done in _gaps(points)]
    gaps = [(done, f"{name}: {metric} was no number at {number(done)}") for name, done in missing]
    return Chart(
        metric,
        [Line(name, _broken_path(points, across, up), []) for name, points in lines.items()],
        [Tick(across(each), number(each)) for each in _steps(min(dones), max(dones))],
        [Tick(up(each), number(each)) for each in _steps(bottom, top)],
        [],
        [Mark(across(_drawable(done)), text) for done, text in gaps[-_MOST_MARKS:]],
        max(0, len(gaps) - _MOST_MARKS),
    )


def _broken_path(points: _Told, across: _Scale, up: _Scale) -> str:
    path, pen = "", "M"
    for done, value, _ in points:
        if value is None:
            pen = "M"
        else:
            path += f"{pen}{across(_drawable(done)):g} {up(_drawable(value)):g}"
            # a point alone is a line to itself: its round ends are seen
            path, pen = (f"{path}h0", "L") if pen == "M" else (path, pen)
    return path


def _gaps(points: _Told) -> list[float]:
    """Where values begin to be missing."""
    before: list[float | None] = [0.0, *(value for _, value, _ in points)]
    gaps = zip(before, points, strict=False)
    return [done for last, (done, value, _) in gaps if value is None and last is not None]


def _summary(metric: str, name: str, points: _Told) -> CurveSummary:
    values = [value for _, value, _ in points if value is not None]
    low, high = (min(values), max(values)) if values else (None, None)
    return CurveSummary(metric, name, len(points), points[-1][0], points[0][1], points[-1][1], low, high)


def sparkline(values: Sequence[float], width: float = 96.0, height: float = 20.0) -> str:
    """Points of an SVG polyline; empty for fewer than two values."""
    finite = [each for each in values if math.isfinite(each)]
    if len(finite) < 2:
        return ""
    across = _Scale(0, len(finite) - 1, 1, width - 1)
    up = _Scale(min(finite), max(finite), height - 2, 2)
    return " ".join(f"{across(place):.1f},{up(value):.1f}" for place, value in enumerate(finite))


class _Scale(NamedTuple):
    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        share = 0.5 if self.high == self.low else (value - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)


def _line(name: str, points: Sequence[Measured], across: _Scale, up: _Scale) -> Line:
    placed = [CurvePoint(across(at.timestamp()), up(value), value, at, number) for at, value, number in points]
    path = "M" + "L".join(f"{each.x:g} {each.y:g}" for each in placed)
    return Line(name, path, placed)


def _thinned(points: Sequence[Measured]) -> Sequence[Measured]:
    """Keep of many points in each stretch the lowest and the highest: no spike is lost."""
    if len(points) <= _MOST_POINTS:
        return points
    size = math.ceil(2 * len(points) / _MOST_POINTS)
    kept: list[Measured] = []
    for first in range(0, len(points), size):
        part = points[first : first + size]
        ends = {min(part, key=lambda each: each[1]), max(part, key=lambda each: each[1])}
        kept += sorted(ends)
    return [*kept, points[-1]] if kept[-1] != points[-1] else kept


def _padded(low: float, high: float, limits: Sequence[float]) -> tuple[float, float]:
    """Room for the values, and for limits that are not far from them."""
    reach = (high - low) or abs(high) or 1.0
    near = [each for each in limits if low - reach <= each <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    room = ((high - low) or abs(high) or 1.0) * 0.06
    return low - room, high + room


def _drawable(value: float) -> float:
    """The value, or the end of what can be drawn: the distance of two values is a number, too."""
    return max(-_MOST_DRAWN, min(_MOST_DRAWN, value))


def _steps(low: float, high: float) -> list[float]:
    """Round numbers between two values."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 1 / _MOST_DRAWN else 1.0
    step = next((power * each for each in (1, 2, 5, 10) if power * each >= rough), power)
    first = math.ceil(low / step)
    return [float(f"{(first + count) * step:.12g}") for count in range(8) if (first + count) * step <= high]


def _dates(low: float, high: float) -> list[tuple[float, str]]:
    """About five moments between two, each as short as tells them apart: whole days, where it is days."""
    if high - low > 4 * _DAY:
        step = math.ceil((high - low) / _DAY / 4) * _DAY
        first = math.ceil(low / _DAY) * _DAY
        days = [first + step * place for place in range(6) if first + step * place <= high]
        return [(each, datetime.fromtimestamp(each, UTC).strftime("%Y-%m-%d")) for each in days]
    form = "%m-%d %H:%M"
    count = 4 if high > low else 0
    moments = [low + (high - low) * place / max(count, 1) for place in range(count + 1)]
    return [(each, datetime.fromtimestamp(each, UTC).strftime(form)) for each in moments]
