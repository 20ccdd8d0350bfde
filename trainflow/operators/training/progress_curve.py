"""The metrics that a training reports while it runs, as curves of bounded size: for who looks at the run afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: points of one metric that are kept; with more, every second one is left out, and so on
MOST_POINTS = 200
#: metrics that are kept
_MOST_METRICS = 20


class ProgressCurve:
    """Each metric over how far the training was. However often it is told, it takes no more than so much memory."""

    def __init__(self) -> None:
        self._points: dict[str, list[tuple[float, float, int]]] = {}
        #: one of so many is kept
        self._every: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._newest: dict[str, tuple[float, float, int]] = {}

    def add(self, done: float, metrics: Mapping[str, float] | None, milliseconds: int) -> None:
        """Remember what is so after `done` units."""
        for name, value in (metrics or {}).items():
            if name in self._points or len(self._points) < _MOST_METRICS:
                self._add(name, (done, value, milliseconds))

    def _add(self, name: str, point: tuple[float, float, int]) -> None:
        points = self._points.setdefault(name, [])
        told = self._told[name] = self._told.get(name, 0) + 1
        self._newest[name] = point
        if (told - 1) % self._every.setdefault(name, 1) == 0:
            points.append(point)
            if len(points) > MOST_POINTS:
                del points[1::2]
                self._every[name] *= 2

    def points(self) -> dict[str, Any]:
        """Name → [done, value, milliseconds] of each point, as JSON; the newest is always among them."""
        found = {}
        for name, points in self._points.items():
            newest = self._newest[name]
            found[name] = [list(each) for each in (points if points[-1] == newest else [*points, newest])]
        return found
