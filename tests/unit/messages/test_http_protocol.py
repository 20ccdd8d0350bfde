"""What of HTTP is the same wherever it is spoken."""

from __future__ import annotations

import pytest

from trainflow.messages.http_protocol import is_named


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"x", "a"', True),
        ('"x",W/"a" , "y"', True),
        ("*", True),
        ('"b"', False),
        ('"a', False),
        ("a", False),
        ("", False),
        (None, False),
    ],
)
def test_entity_tag_is_compared_weakly_and_with_each_of_a_list(header: str | None, named: bool) -> None:
    assert is_named('"a"', header) is named
