"""Answers that are more than one value: read part by part while they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Polled(NamedTuple):
    """Parts of an answer that come with time. `look` returns the next part, and whether it is the last one; it is
    called again after `interval` seconds. What `look` raises before the first part is a problem like any other."""

    media: str
    look: Callable[[], tuple[bytes, bool]]
    interval: float


class AnswerParts(NamedTuple):
    """Parts of an answer that are there. `size`: of all, in bytes, where it is known; `name`: of the file that a
    browser makes of it."""

    media: str
    parts: Iterator[bytes]
    size: int | None = None
    name: str | None = None
    etag: str | None = None
