"""Conditions on metrics, as people write them. Pure.

    auc >= 0.6                    against a number
    auc >= 0.98 * previous        against the same metric of the parent (passes when the parent has none)
    loss <= previous + 0.01
    loss is finite

A metric that is not there does not meet a condition; the message names those that are.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping

import msgspec

from trainflow.errors import InputError

_EXAMPLES = '"auc >= 0.6", "auc >= 0.98 * previous", "loss <= previous + 0.01", "loss is finite"'
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_METRIC = re.compile(r"\s*([A-Za-z_][\w.@/:\-]*)")
_COMPARISON = re.compile(r"\s*(>=|<=|==|>|<)")
_FINITE = re.compile(r"\s+is\s+finite\s*$")
_PREVIOUS = re.compile(rf"\s*(?:({_NUMBER})\s*\*\s*)?previous\s*(?:([+-])\s*({_NUMBER}))?\s*$")
_PLAIN = re.compile(rf"\s*({_NUMBER})\s*$")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


class Condition(msgspec.Struct, frozen=True):
    """`metric comparison factor · previous + offset`; without `previous` the limit is `offset`."""

    text: str
    metric: str
    comparison: str
    against_previous: bool = False
    factor: float = 1.0
    offset: float = 0.0

    def failure(self, metrics: Mapping[str, float], previous: Mapping[str, float]) -> str | None:
        """Why the metrics do not meet it; None when they do."""
        value = metrics.get(self.metric)
        if value is None:
            import difflib

            known = ", ".join(sorted(metrics)) or "none"
            close = difflib.get_close_matches(self.metric, metrics, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            return f"{self.text}: there is no metric {self.metric!r} (there are: {known}){hint}"
        if self.comparison == "finite":
            return None if math.isfinite(value) else f"{self.text}: it is {value}"
        limit = self._limit(previous)
        if limit is None or _OPERATORS[self.comparison](value, limit):
            return None
        if self.against_previous:
            return f"{self.text}: it is {value:.6g}, the limit is {limit:.6g} (previous: {previous[self.metric]:.6g})"
        return f"{self.text}: it is {value:.6g}"

    def _limit(self, previous: Mapping[str, float]) -> float | None:
        if not self.against_previous:
            return self.offset
        before = previous.get(self.metric)
        # a parent that measured nan would otherwise stop the chain for ever: nothing compares with nan
        if before is None or not math.isfinite(before):
            return None
        return self.factor * before + self.offset


def parse_condition(text: str) -> Condition:
    """The condition a person wrote. Raises InputError with the column where it stops making sense."""
    metric = _METRIC.match(text)
    if not metric:
        raise _problem(text, 0, "expected the name of a metric")
    if _FINITE.match(text, metric.end()):
        return Condition(text.strip(), metric[1], "finite")
    comparison = _COMPARISON.match(text, metric.end())
    if not comparison:
        raise _problem(text, metric.end(), "expected one of >= <= > < == or 'is finite'")
    against = _PREVIOUS.match(text, comparison.end())
    if against:
        offset = float((against[2] or "+") + against[3].lstrip("+")) if against[3] else 0.0
        return Condition(text.strip(), metric[1], comparison[1], True, float(against[1] or 1), offset)
    plain = _PLAIN.match(text, comparison.end())
    if not plain:
        raise _problem(text, comparison.end(), "expected a number, or '[number *] previous [± number]'")
    return Condition(text.strip(), metric[1], comparison[1], offset=float(plain[1]))


def _problem(text: str, position: int, expected: str) -> InputError:
    column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
    rest = text[column - 1 :].strip()
    found = f"found {rest!r}" if rest else "it ends there"
    return InputError(f"condition {text!r}: {expected} at column {column}, {found}; examples: {_EXAMPLES}")
