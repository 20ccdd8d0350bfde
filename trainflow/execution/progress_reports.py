"""What an attempt reports while it runs: how far it is, and its metrics as curves.

However often it reports, a report costs no message, and the curves take no more than so much memory: what is between
two messages is replaced by what follows, and of more points than are kept every second one is left out, and so on.
Curves are sent from the first report on, then ever more rarely: an attempt that is killed leaves the one that it sent
last. Names are cut, and without secrets; what is no number is a point without a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from trainflow.clock import Clock
from trainflow.identifiers import digest
from trainflow.messages.execution_api import (
    LONGEST_METRIC_NAME,
    MOST_CURVE_POINTS,
    MOST_CURVES,
    MetricCurves,
    Progress,
)
from trainflow.messages.workload import AttemptKey
from trainflow.observability.redaction import presentable

#: progress is sent at most this often; what comes between is replaced by what follows
_PROGRESS_SECONDS = 0.25
#: curves are sent twice as long after the last time as then, from one of these to the other
_FIRST_CURVES_SECONDS, _CURVES_SECONDS = 1.0, 30.0
#: points of all curves of an attempt that are sent
_MOST_POINTS = 1_000
#: metrics of the moment that are sent
_MOST_METRICS = 100
_NOTE_CHARACTERS = 1_000
_DIGEST_CHARACTERS = 8


class _Curve:
    """One metric, thinned out as it grows. `every`: one of so many reports is kept; `left_out` since the last one."""

    __slots__ = ("every", "left_out", "newest", "points")

    def __init__(self) -> None:
        self.points: list[tuple[float, Any, float]] = []
        self.every = 1
        self.left_out = 0
        self.newest: tuple[float, Any, float] = (0.0, None, 0.0)


class CurveRecorder:
    """Each metric over how far the attempt was. Moments are seconds of a clock that only goes forward."""

    def __init__(self) -> None:
        self._curves: dict[str, _Curve] = {}

    def add(self, done: float, metrics: Mapping[str, Any], at: float) -> None:
        """Remember what is so after `done` units."""
        curves = self._curves
        for name, value in metrics.items():
            curve = curves.get(name)
            if curve is None:
                if len(curves) >= MOST_CURVES:
                    continue
                curve = curves[name] = _Curve()
            curve.newest = point = (done, value, at)
            if curve.left_out:
                curve.left_out -= 1
                continue
            points = curve.points
            points.append(point)
            if len(points) > MOST_CURVE_POINTS:
                del points[1::2]
                curve.every *= 2
            curve.left_out = curve.every - 1

    def curves(self, since_epoch: float) -> MetricCurves:
        """The curves; the newest point is always on them. `since_epoch`: seconds from 1970 to when its clock was 0."""
        most = min(MOST_CURVE_POINTS, _MOST_POINTS // max(1, len(self._curves)))
        found: MetricCurves = {}
        for name, curve in self._curves.items():
            points = curve.points[:: math.ceil(len(curve.points) / most)]
            if points[-1] is not curve.newest:
                points = [*points, curve.newest]
            found[shown_name(name)] = [
                (done, _number(value), round((at + since_epoch) * 1000)) for done, value, at in points
            ]
        return found


class ProgressReporter:
    """Tells how far an attempt is, with `tell`."""

    def __init__(self, key: AttemptKey, tell: Callable[[Progress], None], clock: Clock) -> None:
        self._key, self._tell, self._clock = key, tell, clock
        self._recorder = CurveRecorder()
        self._newest: tuple[float, float | None, str, dict[str, Any], str | None] = (0.0, None, "rows", {}, None)
        self._unsent = False
        self._told_at = self._curves_at = float("-inf")
        self._pause = 0.0

    def report(
        self, done: float, total: float | None, unit: str, metrics: Mapping[str, Any] | None, note: str | None
    ) -> None:
        """See `TaskInstance.report_progress`. What is no number of units changes nothing of how far it is."""
        if not math.isfinite(done):
            done = self._newest[0]
        self._newest = (done, total, unit, {**metrics} if metrics else {}, note)
        self._unsent = True
        now = self._clock.monotonic()
        if metrics:
            self._recorder.add(done, metrics, now)
        if now - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = now
            self.flush()

    def report_waiting(self, note: str | None) -> None:
        """Show what the attempt waits for; None: it goes on."""
        progress = self._progress()
        if note is not None:
            progress = msgspec.structs.replace(progress, note=presentable(note, _NOTE_CHARACTERS))
        self._tell(progress)

    def flush(self) -> None:
        """Send what was reported last."""
        if not self._unsent:
            return
        progress, now = self._progress(), self._clock.monotonic()
        if now - self._curves_at >= self._pause and (curves := self.curves()):
            progress = msgspec.structs.replace(progress, curves=curves)
            self._curves_at = now
            self._pause = min(_CURVES_SECONDS, max(_FIRST_CURVES_SECONDS, 2 * self._pause))
        self._tell(progress)
        self._unsent = False

    def curves(self) -> MetricCurves:
        """All of them, as they are now."""
        return self._recorder.curves(self._clock.now().timestamp() - self._clock.monotonic())

    def _progress(self) -> Progress:
        done, total, unit, metrics, note = self._newest
        shown = None if note is None else presentable(note, _NOTE_CHARACTERS)
        numbers = {shown_name(name): _number(metrics[name]) for name in list(metrics)[:_MOST_METRICS]}
        return Progress(self._key, done, None if total is None else _number(total), unit, numbers, shown)


def shown_name(name: str) -> str:
    """The name of a metric as it is kept: of one that is too long the beginning, and what tells it from others."""
    if len(name) > LONGEST_METRIC_NAME:
        short = digest(name.encode("utf-8", "backslashreplace")).removeprefix("sha256:")[:_DIGEST_CHARACTERS]
        name = f"{name[: LONGEST_METRIC_NAME - _DIGEST_CHARACTERS - 1]}-{short}"
    return presentable(name, LONGEST_METRIC_NAME)[:LONGEST_METRIC_NAME]


def _number(value: Any) -> float | None:
    """None for what JSON has no form for: a loss that is not a number is news too."""
    number = float(value)
    return number if math.isfinite(number) else None
