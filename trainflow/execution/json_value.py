"""What a task hands over, as JSON: nothing is changed on the way without a word."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from trainflow.bounds import MOST_NESTING, check_nesting


def encode_value(value: Any) -> bytes:
    """`value` as JSON. Numbers of NumPy and the like (`.item()`) are taken as the numbers they are.

    Raises TypeError or ValueError for what JSON has no form for; also for nan and the infinities, which would arrive
    as null; InputError for lists and mappings nested too deeply.
    """
    encoded = _ENCODER.encode(value)
    if encoded.count(b"[") + encoded.count(b"{") > MOST_NESTING:
        check_nesting(value, "it")
    if b"null" in encoded:
        _refuse_not_finite(value)
    return encoded


def _scalar(value: Any) -> Any:
    """What a number of a library is in plain Python. Raises TypeError when it is none."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return item()
    raise TypeError(f"objects of type {type(value).__module__}.{type(value).__qualname__}")


def _refuse_not_finite(value: Any) -> None:
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no form in JSON; str() of it has, and so has None")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_not_finite(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _refuse_not_finite(item)


_ENCODER = msgspec.json.Encoder(enc_hook=_scalar)
