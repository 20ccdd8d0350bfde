"""What a person decides about a chain that a gate stopped."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tests.unit.checkpoints.refused_commits import (
    BAD,
    ME,
    after_skips,
    refused,
    sound,
    state_of,
    stopped_over,
)
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger.entries import (
    CheckpointRef,
    Rewind,
    UpstreamSeen,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.manual_decisions import accept, retry_refused, rewind_refused, skip_refused
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.upkeep.garbage import orphaned_artifacts
from trainflow.errors import (
    ArtifactCorrupt,
    ChainMoved,
    ChainStopped,
    CheckpointError,
    InputError,
)
from trainflow.testing.chains import ChainWriter, attempt_id, day, split_of


def test_accepting_commits_it_without_training_and_says_who(writer: ChainWriter) -> None:
    parent = writer.commit()
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))

    made = accept(writer.ledger, request.checkpoint_id, person="ada@here", now=day(6), reason="a holiday")

    assert (made.id, made.parent_id, made.split, made.metrics) == (
        request.checkpoint_id,
        parent.id,
        request.split,
        BAD,
    )
    assert made.by == request.by
    accepted = made.accepted
    assert accepted is not None
    assert (accepted.person, accepted.reason) == ("ada@here", "a holiday")
    assert accepted.refused == ["auc >= 0.6: it is 0.5"]
    assert (state_of(writer).head, state_of(writer).stopped) == (made, None)
    # the run that trained it may commit again, and finds it
    assert commit(writer.store, request, day(7)) == made
    assert writer.commit().parent_id == made.id
    sound(writer)


@pytest.mark.parametrize("damage", ["change", "delete"])
def test_accept_of_damaged_or_missing_files_is_refused(writer: ChainWriter, damage: str) -> None:
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))
    file = writer.store.local_path(f"{request.artifacts.path}/model.bin")
    assert file is not None
    file.write_bytes(b"x" * file.stat().st_size) if damage == "change" else file.unlink()

    with pytest.raises(ArtifactCorrupt, match=r"'trainflow resume .*' without an option"):
        accept(writer.ledger, request.checkpoint_id, person="ada", now=day(6))

    assert state_of(writer).stopped is not None


def test_stop_keeps_acceptable_files_from_sweep(writer: ChainWriter) -> None:
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))

    # files are as old as they are, whatever day a checkpoint calls today
    later = datetime(2100, 1, 1, tzinfo=UTC)
    assert orphaned_artifacts(writer.ledger, later) == []

    retry_refused(writer.ledger, request.checkpoint_id, by=ME, now=day(6))
    assert [each.path for each in orphaned_artifacts(writer.ledger, later)] == [request.artifacts.path]


def test_trying_again_trains_split_again(writer: ChainWriter) -> None:
    parent = writer.commit()
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))

    entry = retry_refused(writer.ledger, request.checkpoint_id, by=ME, now=day(6), reason="fixed it")

    assert (entry.by.person, entry.reason, state_of(writer).stopped) == ("ada", "fixed it", None)
    again = writer.request(parent=parent, metrics={"auc": 0.9}, gates=request.gates)
    assert commit(writer.store, again, day(7)).sequence == 4
    sound(writer)


def test_decision_is_made_once_and_about_what_was_looked_at(writer: ChainWriter) -> None:
    writer.commit_many(2)
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))
    with pytest.raises(ChainMoved, match="is stopped over"):
        retry_refused(writer.ledger, attempt_id(99), by=ME, now=day(6))

    skip_refused(writer.ledger, request.checkpoint_id, by=ME, now=day(6))

    with pytest.raises(ChainMoved, match="not stopped any more"):
        retry_refused(writer.ledger, request.checkpoint_id, by=ME, now=day(7))
    with pytest.raises(ChainMoved, match="not stopped any more"):
        skip_refused(writer.ledger, request.checkpoint_id, by=ME, now=day(7))
    with pytest.raises(ChainMoved, match="not stopped any more"):
        rewind_refused(writer.ledger, request.checkpoint_id, 1, by=ME, now=day(7))
    with pytest.raises(ChainMoved, match="not stopped any more"):
        accept(writer.ledger, request.checkpoint_id, person="ada", now=day(7))


@pytest.mark.parametrize("count", [0, 3, 9])
def test_manual_rewind_beyond_first_checkpoint_is_refused(writer: ChainWriter, count: int) -> None:
    writer.commit_many(2)
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))

    with pytest.raises(InputError, match="its line has 2"):
        rewind_refused(writer.ledger, request.checkpoint_id, count, by=ME, now=day(6))


def test_person_rewinds_stopped_chain(writer: ChainWriter) -> None:
    made = writer.commit_many(3)
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))

    entry = rewind_refused(writer.ledger, request.checkpoint_id, 2, by=ME, now=day(6))

    assert (entry.to_checkpoint_id, entry.cause) == (made[0].id, "person")
    assert (state_of(writer).head, state_of(writer).stopped) == (made[0], None)
    # the run that was refused finds what became of it
    assert commit(writer.store, request, day(7)) == entry
    sound(writer)


def test_manual_rewind_further_back_gives_splits_new_turn(writer: ChainWriter) -> None:
    made = writer.commit_many(3)
    commit(writer.store, refused(writer, "rewind 1"), day(5))
    head = state_of(writer).head
    assert head is not None

    rewind(writer.ledger, made[0].id, expected_head=head.id, by=ME, now=day(6))

    assert state_of(writer).gate_rewinds == []


def test_manual_rewind_past_start_of_another_stage_is_refused(writer: ChainWriter, tmp_path: Path) -> None:
    made = writer.commit_many(3)
    stage = ChainWriter(writer.store, tmp_path, ChainKey("flights", "fine"))
    stage.runs = 100
    stage.commit(split=split_of(9), origin=CheckpointRef(writer.chain, made[2].id))
    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "stop"), day(5))

    with pytest.raises(InputError, match="rewind flights --cascade"):
        rewind_refused(writer.ledger, stopped_over(writer), 1, by=ME, now=day(6))


def test_checkpoint_cannot_claim_to_have_been_accepted(writer: ChainWriter) -> None:
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))
    stop = state_of(writer).stopped
    assert stop is not None
    made = accept(writer.ledger, stop.id, person="ada", now=day(6))
    state = state_of(writer)
    forged = msgspec.structs.replace(
        made,
        sequence=state.sequence + 1,
        previous=state.digest,
        number=state.last_number + 1,
        id=attempt_id(50),
        parent_id=made.id,
        split=split_of(1),
        watermark=day(2),
    )

    with pytest.raises(CheckpointError, match="it was accepted, yet the chain is not stopped"):
        writer.ledger.append(lambda _: forged)


def test_rewind_of_gate_ends_at_what_person_accepted(writer: ChainWriter) -> None:
    writer.commit_many(2)
    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "stop"), day(5))
    stop = state_of(writer).stopped
    assert stop is not None
    held = accept(Ledger(writer.store, writer.chain), stop.id, person="ada", now=day(6))
    writer.commit()

    done = commit(writer.store, refused(writer, "rewind 3"), day(7))

    assert isinstance(done, Rewind)
    assert done.to_checkpoint_id == held.id
    assert "a person decided about the checkpoint at place 3 of the line: it goes back no further" in done.reason
    # and from there, there is nowhere to go back to
    with pytest.raises(ChainStopped, match="take back what a person has decided"):
        commit(writer.store, refused(writer, "rewind 1"), day(8))
    sound(writer)


@pytest.mark.parametrize("commits", [0, 1, 2])
def test_rewind_of_gate_keeps_what_person_skipped_skipped(writer: ChainWriter, commits: int) -> None:
    writer.commit_many(2)
    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "stop"), day(5))
    stop = state_of(writer).stopped
    assert stop is not None
    skip_refused(Ledger(writer.store, writer.chain), stop.id, by=ME, now=day(6))
    made = [writer.commit(split=after_skips(writer) if number == 0 else None) for number in range(commits)]
    split = None if commits else after_skips(writer)

    request = refused(writer, "rewind 3", split=split)
    if commits < 2:  # what recorded it is the head, or nothing is yet
        with pytest.raises(ChainStopped, match="take back what a person has decided"):
            commit(writer.store, request, day(7))
        return
    done = commit(writer.store, request, day(7))
    assert isinstance(done, Rewind)
    assert done.to_checkpoint_id == made[0].id


def test_gate_rewind_ignores_decisions_taken_back(writer: ChainWriter) -> None:
    first, _ = writer.commit_many(2)
    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "stop"), day(5))
    stop = state_of(writer).stopped
    assert stop is not None
    held = accept(Ledger(writer.store, writer.chain), stop.id, person="ada", now=day(6))
    rewind(Ledger(writer.store, writer.chain), first.id, expected_head=held.id, by=ME, now=day(7))
    writer.commit_many(2)

    done = commit(writer.store, refused(writer, "rewind 2"), day(8))

    assert isinstance(done, Rewind)
    assert done.to_checkpoint_id == first.id


def test_accept_of_model_from_undone_upstream_is_refused(writer: ChainWriter, tmp_path: Path) -> None:
    base = ChainWriter(writer.store, tmp_path / "base", ChainKey("flights", "base"))
    first, second = base.commit_many(2)
    seen = UpstreamSeen(base.chain, 0)
    request = refused(writer, "stop", origin=CheckpointRef(base.chain, second.id), upstream=seen)
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))
    stop = state_of(writer).stopped
    assert stop is not None
    assert stop.upstream == seen
    rewind(base.ledger, first.id, expected_head=second.id, by=ME, now=day(6))

    with pytest.raises(InputError, match=r"which was undone since\. Train it again"):
        accept(writer.ledger, stop.id, person="ada", now=day(7))
    retry_refused(writer.ledger, stop.id, by=ME, now=day(7))
    assert state_of(writer).stopped is None
