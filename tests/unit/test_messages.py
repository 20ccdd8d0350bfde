"""What messages of the program tell its users to type can be typed."""

from __future__ import annotations

import pytest

from tests import messages


def test_commands_of_messages_have_their_arguments_and_options() -> None:
    told = list(messages.told_commands())

    assert len(told) > 50
    assert [f"{where}: {text} ({wrong})" for where, text in told if (wrong := messages.wrong_with(text))] == []


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("trainflow resume days --accept", None),
        ("trainflow checkpoints rewind days --before DATE", None),
        ("trainflow start --branch=x days", None),
        ("trainflow resume --accept", "1 arguments are required, 0 given"),
        ("trainflow start --branch x", "1 arguments are required, 0 given"),
        ("trainflow resume days --agree", "no option --agree"),
        ("trainflow checkpoints rewind days --before", "no value of --before"),
        ("trainflow checkpoints undo days", "no command checkpoints undo"),
    ],
)
def test_wrong_with_command_says_what_would_be_refused(command: str, wrong: str | None) -> None:
    assert messages.wrong_with(command) == wrong
