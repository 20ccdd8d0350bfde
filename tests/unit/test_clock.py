"""How long something took, where clocks may be set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainflow.clock import elapsed_seconds

_NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "seconds"),
    [
        (_NOON, _NOON + timedelta(minutes=2), 120.0),
        (_NOON, _NOON, 0.0),
        (_NOON, None, None),
        (None, _NOON, None),
        # the clock was set back: not known, and above all not less than nothing
        (_NOON, _NOON - timedelta(hours=1), None),
    ],
)
def test_elapsed_time_is_never_less_than_nothing(
    start: datetime | None, end: datetime | None, seconds: float | None
) -> None:
    assert elapsed_seconds(start, end) == seconds
