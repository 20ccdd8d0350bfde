"""What is told of an exception."""

from __future__ import annotations

import pytest

from trainflow.errors import FailException, TrainflowError, describe


class OwnError(TrainflowError):
    """A user's error below ours."""


class ShownByNothing(Exception):
    """One whose message is made of what is not there."""

    def __str__(self) -> str:
        return self.missing  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FailException("no use"), "no use"),
        (FailException(), "FailException"),
        (OwnError("no use"), "OwnError: no use"),
        (ValueError("nan"), "ValueError: nan"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (ShownByNothing(), "ShownByNothing: (its message cannot be shown: AttributeError in __str__)"),
    ],
)
def test_describe_names_class_of_errors_that_are_not_ours(error: BaseException, said: str) -> None:
    assert describe(error) == said
