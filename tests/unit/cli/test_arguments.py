from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trainflow.cli.arguments import moment
from trainflow.errors import InputError


@pytest.mark.parametrize(
    ("text", "hour", "minute"),
    [
        ("2013-01-01", 0, 0),
        ("2013-01-01T05", 5, 0),
        ("2013-01-01T05:00+02:00", 3, 0),
        ("2013-01-01 05:30", 5, 30),
    ],
)
def test_moment_without_zone_is_utc(text: str, hour: int, minute: int) -> None:
    assert moment(text, "--before") == datetime(2013, 1, 1, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "tomorrow", "2013-13-01", "01.02.2013"])
def test_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--before .* is not a date.*write a date"):
        moment(text, "--before")
