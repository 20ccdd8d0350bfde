"""How commands name a chain, and that messages which say what to type do so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trainflow
from trainflow.checkpoints.chain import ChainKey

PACKAGE = Path(trainflow.__file__).parent
#: a command of a message that names a pipeline, where it is about one of its chains
NAMES_PIPELINE = re.compile(r"trainflow (?!start)[a-z ]+\{[^{}]*\bpipeline\}")


@pytest.mark.parametrize(
    ("chain", "arguments", "fork", "start"),
    [
        (ChainKey("clicks"), "clicks", "clicks", "clicks"),
        (ChainKey("clicks", "fine"), "clicks --stage fine", "clicks --stage fine", "clicks"),
        (ChainKey("clicks", branch="hot"), "clicks --branch hot", "clicks --of hot", "clicks --branch hot"),
        (
            ChainKey("clicks", "fine", "hot"),
            "clicks --stage fine --branch hot",
            "clicks --stage fine --of hot",
            "clicks --branch hot",
        ),
    ],
)
def test_chain_is_named_as_each_command_names_it(chain: ChainKey, arguments: str, fork: str, start: str) -> None:
    assert (chain.arguments, chain.fork_arguments, chain.start_arguments) == (arguments, fork, start)


def test_commands_in_messages_name_stage_and_branch() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {match.group()}"
        for path in PACKAGE.rglob("*.py")
        for match in NAMES_PIPELINE.finditer(path.read_text(encoding="utf-8"))
    }
    assert found == set()
