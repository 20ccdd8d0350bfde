"""What is asked for twice is written once; what was decided about another head is not written at all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger.entries import ArtifactFile, Author, CheckpointRef, HoleFilled
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.fork import adopt, fork
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import chains_of, prune
from trainflow.checkpoints.ledger_changes.rewind import rewind, skip
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import ChainMoved, CheckpointError, InputError
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, day, split_of

ME = Author("person")
FILES = [ArtifactFile("model.bin", 3, "sha256:0")]


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    """[0, 2), [2, 5) with day 3 a hole."""
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    writer.commit(days=2)
    writer.commit(days=3, skip=[1])
    return writer


def fresh(writer: ChainWriter) -> Ledger:
    return Ledger(writer.store, writer.chain)


def test_filling_hole_is_commit_that_leaves_watermark_where_it_is(writer: ChainWriter) -> None:
    parent = writer.ledger.checkpoint()
    request = writer.request(parent=parent, fills=True, split=split_of(3))

    made = commit(writer.store, request, day(6))

    assert isinstance(made, HoleFilled)
    assert (made.parent_id, made.watermark, made.split.start) == (parent.id, day(5), day(3))
    assert commit(writer.store, request, day(7)) == made
    retried = writer.request(parent=parent, fills=True, split=split_of(3), run_id=request.by.run_id)
    assert commit(writer.store, retried, day(7)) == made
    state = fresh(writer).state()
    assert (state.head, state.holes, state.sequence) == (made, [], 3)
    assert fresh(writer).checkpoint(made.id) == made


def test_fill_is_fenced_and_fills_nothing_but_holes(writer: ChainWriter) -> None:
    first, parent = writer.ledger.line()
    stale = writer.request(parent=writer.ledger.checkpoint(first.id), fills=True, split=split_of(3))
    with pytest.raises(ChainMoved):
        commit(writer.store, stale, day(6))
    with pytest.raises(CheckpointError, match="no hole of the line"):
        writer.commit(fills=True, split=split_of(4))

    assert fresh(writer).checkpoint().id == parent.id


def test_empty_chain_has_no_hole_to_fill(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")

    with pytest.raises(CheckpointError, match="no hole to fill"):
        writer.commit(fills=True, split=split_of(3))


def test_init_from_another_chain_at_every_checkpoint_is_allowed(writer: ChainWriter) -> None:
    origin = CheckpointRef(ChainKey("flights", "base"), "b")
    made = writer.commit(origin=origin)

    assert (made.origin, made.sequence) == (origin, 3)
    request = msgspec.structs.replace(writer.request(parent=made), origin=CheckpointRef(writer.chain, made.id))
    with pytest.raises(InputError, match="its origin is in the same chain"):
        commit(writer.store, request, day(9))


def test_skip_asked_twice_is_written_once_on_its_head_only(writer: ChainWriter) -> None:
    head = writer.ledger.checkpoint().id

    made = skip(writer.ledger, day(5), day(7), expected_head=head, by=ME, now=day(8), reason="bad")
    again = skip(fresh(writer), day(5), day(7), expected_head=head, by=ME, now=day(9), reason="bad")

    assert made is not None
    assert (made.start, made.end, made.parent_id, again) == (day(5), day(7), head, None)
    with pytest.raises(CheckpointError, match="it skips from"):
        skip(fresh(writer), day(6), day(8), expected_head=head, by=ME, now=day(9), reason="bad")
    with pytest.raises(ChainMoved, match="nothing was skipped"):
        skip(fresh(writer), day(7), day(8), expected_head=None, by=ME, now=day(9), reason="bad")


def test_skip_on_empty_chain_is_allowed_and_taken_back_by_rewind(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    skip(writer.ledger, day(0), day(2), expected_head=None, by=ME, now=day(8), reason="old")

    rewind(writer.ledger, None, expected_head=None, by=ME, now=day(8))

    assert fresh(writer).state().skips == []
    assert writer.commit().watermark == day(1)


def test_promotion_asked_for_again_is_written_once(writer: ChainWriter) -> None:
    first, second = (each.id for each in writer.ledger.line())

    assert promote(writer.ledger, first, "champion", by=ME, now=day(6)) is not None
    assert promote(fresh(writer), first, "champion", by=ME, now=day(6)) is None
    assert promote(fresh(writer), second, "champion", by=ME, now=day(6)) is not None
    assert fresh(writer).state().promoted == {"champion": second}
    with pytest.raises(CheckpointError, match="not a kept checkpoint"):
        promote(writer.ledger, "missing", "champion", by=ME, now=day(6))


def test_rewind_moves_aliases_back(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    made = [each.id for each in writer.commit_many(5)]
    for number, alias in [(0, "best"), (1, "best"), (1, "safe"), (4, "best"), (3, "only"), (3, "best")]:
        promote(writer.ledger, made[number], alias, by=ME, now=day(6))
    rewind(writer.ledger, made[2], expected_head=made[4], by=ME, now=day(7))

    # the newest of those that stay has it again, whatever was promoted after it
    assert fresh(writer).state().promoted == {"best": made[1], "safe": made[1]}
    assert fresh(writer).state().demoted == {"best": [made[3]], "only": [made[3]]}
    prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(8))
    again = writer.commit().id
    promote(writer.ledger, again, "safe", by=ME, now=day(9))
    rewind(writer.ledger, made[1], expected_head=again, by=ME, now=day(9))
    assert fresh(writer).state().promoted == {"best": made[1], "safe": made[1]}
    report = audit(writer.ledger, None)
    assert (report.problems, report.promoted) == ([], {"best": made[1], "safe": made[1]})


def test_alias_does_not_go_back_to_who_was_pruned(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    made = [each.id for each in writer.commit_many(4)]
    for number in (0, 3):
        promote(writer.ledger, made[number], "best", by=ME, now=day(6))
    prune(writer.ledger, [KeepLatest(3)], by=ME, now=day(8))
    rewind(writer.ledger, made[1], expected_head=made[3], by=ME, now=day(9))
    assert (fresh(writer).state().promoted, fresh(writer).state().demoted) == ({}, {"best": [made[3]]})


def test_chain_begins_once(writer: ChainWriter, tmp_path: Path) -> None:
    origin = CheckpointRef(writer.chain, writer.ledger.checkpoint().id)
    branch = Ledger(writer.store, ChainKey("flights", "main", "deeper"))

    made = fork(branch, origin, day(5), overrides={"depth": "3"}, by=ME, now=day(6))
    assert fork(Ledger(writer.store, branch.chain), origin, day(5), overrides={"depth": "3"}, by=ME, now=day(7)) == made
    with pytest.raises(CheckpointError, match="has begun already"):
        fork(branch, origin, day(5), overrides={"depth": "4"}, by=ME, now=day(7))
    with pytest.raises(CheckpointError, match="has begun already"):
        adopt(writer.ledger, "s3://old", day(5), FILES, by=ME, now=day(7))

    old = Ledger(writer.store, ChainKey("flights", "main", "old"))
    adopted = adopt(old, "s3://old", day(5), FILES, by=ME, now=day(6))
    assert adopt(Ledger(writer.store, old.chain), "s3://old", day(5), FILES, by=ME, now=day(7)) == adopted
    with pytest.raises(CheckpointError, match="has begun already"):
        adopt(old, "s3://other", day(5), FILES, by=ME, now=day(7))


def test_fork_goes_on_at_its_watermark(writer: ChainWriter, tmp_path: Path) -> None:
    head = writer.ledger.checkpoint()
    branch = ChainWriter(writer.store, tmp_path / "other", ChainKey("flights", "main", "deeper"))
    branch.runs = 10
    fork(branch.ledger, CheckpointRef(writer.chain, head.id), head.watermark, by=ME, now=day(6))

    with pytest.raises(CheckpointError, match="the chain goes on from 2013-01-06"):
        branch.commit(split=split_of(0), origin=CheckpointRef(writer.chain, head.id))

    assert branch.commit(split=split_of(5), origin=CheckpointRef(writer.chain, head.id)).sequence == 2


def test_rewind_says_who_asked_for_it(writer: ChainWriter) -> None:
    first, second = (each.id for each in writer.ledger.line())

    entry = rewind(writer.ledger, first, expected_head=second, by=ME, now=day(6), cause="gate", reason="auc fell")

    assert (entry.cause, entry.reason, fresh(writer).state().generation) == ("gate", "auc fell", 1)
    with pytest.raises(ChainMoved, match="nothing was rewound"):
        rewind(writer.ledger, None, expected_head=second, by=ME, now=day(6))


def test_folder_that_no_chain_can_be_called_is_none_of_a_chain(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch", ChainKey("flights", "main", "hot"))
    writer.commit()
    for folder in ("flights/lost+found/main", "flights/main/.snapshot"):
        (tmp_path / "store" / folder).mkdir(parents=True)
    assert chains_of(writer.store, "flights") == [writer.chain]
