"""A checkpoint has one number, which every command says and takes; that of its ledger entry is another one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.integration.cli_history import History
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger_changes.fork import CheckpointRef
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.testing.chains import ChainWriter, day, split_of

ME = Author(person="ada")
YAML = """
pipeline: flights
samples: {path: "data/date={start:%Y-%m-%d}/", length: 1d, start: 2013-01-01}
split: {partitions: 1}
train: {command: ["true"]}
"""


@pytest.fixture
def history(inside: Callable[..., History]) -> History:
    """Checkpoints 1 to 4 on the line, each but the first after a promotion: entries 1, 3, 5 and 7."""
    found = inside(History, {"pipelines/flights.yaml": YAML})
    for alias in ("a", "b", "c"):
        made = found.main.commit(evaluation={"auc": 0.5})
        promote(found.main.ledger, made.id, alias, by=ME, now=day(9))
    found.main.commit(evaluation={"auc": 0.6})
    return found


def test_entries_and_numbers_differ(history: History) -> None:
    made = [each for each in history.ledger.entries() if isinstance(each, Checkpoint)]
    assert [(each.number, each.sequence) for each in made] == [(1, 1), (2, 3), (3, 5), (4, 7)]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("status", "flights   4 "),
        ("checkpoints list flights", "\n4           head"),
        ("checkpoints show flights", "checkpoint      4 of 4  "),
        ("checkpoints show flights @b", "checkpoint      2 of 4  "),
        ("checkpoints show flights 4", "parent          3  "),
        ("checkpoints verify flights --all", "checkpoint 4  intact"),
        ("checkpoints ledger flights", "     7  2013-01-05T00:00Z  checkpoint 4  "),
        ("checkpoints ledger flights", "promotion of checkpoint 3 to c"),
        ("checkpoints promote flights 3 --alias d", "checkpoint 3 is promoted to 'd'"),
        ("checkpoints rewind flights --to 2 --dry-run", "from checkpoint 4 to checkpoint 2"),
        ("checkpoints rewind flights --to 2 --dry-run", "2 checkpoints undone: 4, 3"),
        ("checkpoints rewind flights --to 2 --dry-run", "2 partitions of that are not there any more, the first"),
        ("checkpoints rewind flights --to @b --dry-run", "'c' would name no checkpoint any more"),
        ("checkpoints fork flights --from 3 --branch hot", "flights/main/hot goes on from checkpoint 3 of"),
        ("checkpoints compare flights 2 4", "A  flights/main/main  checkpoint 2, "),
        ("checkpoints compare flights @b main", "A  flights/main/main  checkpoint 2, "),
        ("audit flights --no-samples", "head        checkpoint 4 ("),
        ("audit flights --lineage 3", "flights/main/main checkpoint 3, "),
        ("audit flights --lineage @a", "flights/main/main checkpoint 1, "),
        ("plan flights", "flights/main/main: checkpoint 4, "),
    ],
)
def test_command_says_and_takes_numbers(history: History, command: str, says: str) -> None:
    _, out = history.run(*command.split())
    assert says in out


@pytest.mark.parametrize(
    ("named", "number"),
    [("flights 3", 3), ("flights head", 4), ("flights @b", 2), ("flights:3", 3), ("flights:head", 4), ("flights@b", 2)],
)
def test_path_of_number_is_that_of_the_checkpoint(history: History, named: str, number: int) -> None:
    made = {each.number: each for each in history.ledger.entries() if isinstance(each, Checkpoint)}

    found = history.json("checkpoints", "path", *named.split())

    assert (found["number"], found["id"]) == (number, made[number].id)
    assert "sequence" not in found
    assert history.json("checkpoints", "show", *named.split())["id"] == made[number].id
    (verified,) = history.json("checkpoints", "verify", *named.split())["checkpoints"]
    assert (verified["number"], verified["ok"]) == (number, True)
    done = history.json("checkpoints", "export", *named.split(), "-o", str(history.root / "out"))
    assert (done["number"], done["id"]) == (number, made[number].id)


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("0", "never had a checkpoint 0: its newest is 4"),
        ("7", "never had a checkpoint 7: its newest is 4"),
        ("1", "keeps no checkpoint 1: kept are 2, 3, 4. What was pruned is in 'trainflow checkpoints ledger flights'"),
    ],
)
def test_number_that_is_not_there_says_what_is(history: History, which: str, why: str) -> None:
    promote(history.main.ledger, history.ledger.line()[1].id, "a", by=ME, now=day(9))
    prune(history.main.ledger, [KeepLatest(1)], by=ME, now=day(9))

    code, out = history.run("checkpoints", "show", "flights", which)

    assert code == 2
    assert why in " ".join(out.split())


def test_undone_checkpoint_keeps_its_number_and_later_ones_go_on(history: History) -> None:
    line = history.ledger.line()
    rewind(history.main.ledger, line[1].id, expected_head=line[3].id, by=ME, now=day(9))
    history.main.commit()

    listed = history.json("checkpoints", "list", "flights")

    assert [(each["number"], each["on_line"]) for each in listed] == [
        (1, True), (2, True), (3, False), (4, False), (5, True),
    ]  # fmt: skip
    assert "checkpoint      5 of 5  " in history.run("checkpoints", "show", "flights")[1]
    code, out = history.run("checkpoints", "rewind", "flights", "--to", "3", "--dry-run")
    assert (code, "a rewind left it behind" in out) == (2, True)


def test_branch_counts_on_from_where_it_was_forked(history: History) -> None:
    history.run("checkpoints", "fork", "flights", "--from", "3", "--branch", "hot")
    branch = ChainWriter(history.store, history.root / "hot", ChainKey("flights", "main", "hot"))
    branch.commit(split=split_of(3), origin=CheckpointRef(history.main.chain, history.ledger.line()[2].id))

    assert history.json("checkpoints", "show", "flights", "--branch", "hot")["number"] == 4
    partitions = history.json("audit", "flights", "--branch", "hot", "--lineage", "head")["partitions"]
    assert [(each["chain"].rpartition("/")[2], each["number"]) for each in partitions] == [
        ("main", 1), ("main", 2), ("main", 3), ("hot", 4),
    ]  # fmt: skip
    code, out = history.run("checkpoints", "show", "flights", "2", "--branch", "hot")
    assert code == 2
    assert re.search(r"begins with checkpoint 4: 2 is one of flights/main/main, which it was forked from", out)
