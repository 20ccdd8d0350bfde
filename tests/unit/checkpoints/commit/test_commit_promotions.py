"""Which commits are promoted, and when a promotion that was cut off is made up for."""

from __future__ import annotations

import math

import pytest

from tests.unit.checkpoints.refused_commits import (
    ME,
    PREFIXES,
    sound,
    state_of,
)
from trainflow.checkpoints.commit.commit import STEPS, Commit, commit
from trainflow.checkpoints.ledger.entries import (
    Checkpoint,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.promote import Promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import (
    InputError,
)
from trainflow.testing.chains import ChainWriter, day

GOOD = Promote("champion", ("auc >= 0.65", "auc > previous"))


@pytest.mark.parametrize(
    ("metrics", "promoted"),
    [({"auc": 0.7}, True), ({"auc": 0.64}, False), ({"auc": 0.65}, False), ({}, False), ({"auc": math.nan}, False)],
)
def test_promotion_goes_to_checkpoint_that_meets_condition(
    writer: ChainWriter, metrics: dict[str, float], promoted: bool
) -> None:
    writer.commit(metrics={"auc": 0.65})

    made = writer.commit(metrics=metrics, promotes=(GOOD,))

    assert state_of(writer).promoted == ({"champion": made.id} if promoted else {})


def test_honest_score_goes_first(writer: ChainWriter) -> None:
    writer.commit()
    writer.commit(metrics={"auc": 0.99}, evaluation={"auc": 0.5}, promotes=(GOOD,))

    assert state_of(writer).promoted == {}


@pytest.mark.parametrize("count", PREFIXES)
def test_promotion_is_made_up_for_wherever_it_was_cut(writer: ChainWriter, count: int) -> None:
    parent = writer.commit(metrics={"auc": 0.6})
    every = Promote("newest")
    request = writer.request(parent=parent, metrics={"auc": 0.7}, promotes=(GOOD, every))
    work = Commit(Ledger(writer.store, writer.chain), request, day(5))
    for _, step in STEPS[:count]:
        step(work)

    for _ in range(2):
        made = commit(writer.store, request, day(6))

    assert isinstance(made, Checkpoint)
    assert state_of(writer).promoted == {"champion": made.id, "newest": made.id}
    assert state_of(writer).sequence == 4
    sound(writer)


def test_promotion_by_late_repeated_commit_is_not_made(writer: ChainWriter) -> None:
    parent = writer.commit(metrics={"auc": 0.6})
    request = writer.request(parent=parent, metrics={"auc": 0.7}, promotes=(GOOD,))
    commit(writer.store, request, day(5))
    champion = writer.commit(metrics={"auc": 0.8}, promotes=(GOOD,))

    commit(writer.store, request, day(6))

    assert state_of(writer).promoted == {"champion": champion.id}


def test_parent_may_be_pruned_before_late_retry(writer: ChainWriter) -> None:
    parent = writer.commit(metrics={"auc": 0.6})
    request = writer.request(parent=parent, metrics={"auc": 0.7}, promotes=(GOOD,))
    made = commit(writer.store, request, day(5))
    prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(6))

    assert commit(writer.store, request, day(7)) == made


@pytest.mark.parametrize("alias", ["", "latest", "Latest", "v3", "V12", "a.b", "a b", "../x"])
def test_alias_that_mlflow_would_refuse(alias: str) -> None:
    with pytest.raises(InputError):
        Promote(alias)
