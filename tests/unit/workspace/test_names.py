"""What a person calls a checkpoint."""

from __future__ import annotations

import pytest

from trainflow.errors import InputError
from trainflow.workspace.names import checkpoint_argument


@pytest.mark.parametrize(
    ("pipeline", "which", "meant"),
    [
        ("flights", None, ("flights", "head")),
        ("flights", "@champion", ("flights", "@champion")),
        ("flights:head", None, ("flights", "head")),
        ("flights:27", None, ("flights", "27")),
        (
            "flights.stage.branch:01m8r0bjxb070dpznyg9nkghmg",
            None,
            ("flights.stage.branch", "01m8r0bjxb070dpznyg9nkghmg"),
        ),
        ("flights@champion", None, ("flights", "@champion")),
        ("flights:@champion", None, ("flights", "@champion")),
        ("pipelines/flights.yaml:27", None, ("pipelines/flights.yaml", "27")),
        ("pipelines/flights.yaml@a.b", None, ("pipelines/flights.yaml", "@a.b")),
        ("me@host:folder/flights.yaml", None, ("me@host:folder/flights.yaml", "head")),
        ("me@host:folder/flights.py@champion", None, ("me@host:folder/flights.py", "@champion")),
        ("a@b.yaml", "3", ("a@b.yaml", "3")),
        ("me@host/flights", None, ("me@host/flights", "head")),
        ("flights:", None, ("flights:", "head")),
        ("@champion", None, ("@champion", "head")),
    ],
)
def test_checkpoint_argument_in_one_word_or_two(pipeline: str, which: str | None, meant: tuple[str, str]) -> None:
    assert checkpoint_argument(pipeline, which) == meant


def test_checkpoint_argument_named_twice_is_refused() -> None:
    with pytest.raises(InputError, match="'flights:27' names checkpoint 27, and '@champion' another one"):
        checkpoint_argument("flights:27", "@champion")
