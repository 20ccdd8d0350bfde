"""What a training or evaluating function may hand back: names with finite numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from trainflow.errors import TaskError


def checked_metrics(returned: Any, who: str) -> dict[str, float]:
    """The metrics in what `who` returned; None is none.

    Numbers of any library that know how to become a float are taken (NumPy, a tensor of one element). Raises TaskError
    for what is no mapping from names to numbers. NaN and infinity are kept: a gate decides about them, and a metric
    that is left out would pass for one that was never measured.
    """
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise TaskError(
            f"{who} returned {_described(returned)}: return a dict of metrics (name → number), or nothing at all"
        )
    return {_name(name, who): _number(name, value, who) for name, value in returned.items()}


def _name(name: Any, who: str) -> str:
    if not isinstance(name, str) or not name:
        raise TaskError(f"{who} returned a metric named {name!r}: names are strings that are not empty")
    return name


def _number(name: str, value: Any, who: str) -> float:
    if isinstance(value, str | bytes) or value is None:
        raise TaskError(f"{who} returned {name!r} = {_described(value)}: a metric is a number")
    if isinstance(value, Real):
        return float(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TaskError(f"{who} returned {name!r} = {_described(value)}: a metric is a number") from None


def _described(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def metrics_to_xcom(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Metrics as JSON, which has no form for nan and the infinities: those become text."""
    return {name: value if math.isfinite(value) else str(value) for name, value in metrics.items()}


def metrics_from_xcom(value: Mapping[str, Any] | None) -> dict[str, float]:
    """The inverse."""
    return {name: float(number) for name, number in (value or {}).items()}
