"""What gates do to a chain: stop it, skip a split, rewind it; promotions; and what a person decides."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.checkpoints.actions.manual_decisions import accept, retry_refused, rewind_refused, skip_refused
from trainflow.checkpoints.actions.promote import Promote, promote
from trainflow.checkpoints.actions.prune import prune
from trainflow.checkpoints.actions.rewind import rewind
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import STEPS, Commit, commit
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.commit.request import CommitRequest
from trainflow.checkpoints.ledger.entries import (
    Author,
    Checkpoint,
    CheckpointRef,
    HoleRecord,
    Rewind,
    Skip,
    SplitSummary,
    UpstreamSeen,
)
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.upkeep.orphans import orphaned_artifacts
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import (
    ArtifactCorrupt,
    ChainMoved,
    ChainStopped,
    CheckpointError,
    InputError,
)
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, attempt_id, day, split_of

ME = Author(person="ada", hostname="here")
PREFIXES = range(len(STEPS) + 1)
BAD = {"auc": 0.5}


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    return ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")


def state_of(writer: ChainWriter) -> ChainState:
    return Ledger(writer.store, writer.chain).state()


def refused(writer: ChainWriter, action: str, **more: Any) -> CommitRequest:
    """The next split, refused by a gate."""
    head = state_of(writer).head
    return writer.request(parent=head, metrics=BAD, gates=(Gate("auc >= 0.6", action),), **more)


def after_skips(writer: ChainWriter, days: int = 1) -> SplitSummary:
    """The split that comes after the skips of a chain: it records them."""
    state = state_of(writer)
    assert state.edge is not None
    start = state.watermark or state.skips[0].start
    first = (state.edge - day(0)).days
    return msgspec.structs.replace(split_of(first, days), start=start, holes=state.skips)


def sound(writer: ChainWriter) -> None:
    """The audit from the raw entries agrees with the fold."""
    report = audit(Ledger(writer.store, writer.chain), None, day(99))
    state = state_of(writer)
    assert report.problems == []
    assert report.head_id == (state.head.id if state.head else None)
    assert [(each.start, each.end) for each in report.skips] == [(each.start, each.end) for each in state.skips]
    assert any("is stopped" in notice for notice in report.notices) is (state.stopped is not None)


# -- stop ----------------------------------------------------------------------------------------------------------


def test_stop_keeps_all_that_commit_needs(writer: ChainWriter) -> None:
    parent = writer.commit()
    request = refused(writer, "stop", evaluation={"gain": math.nan}, params={"depth": 3}, seconds=5.0)

    with pytest.raises(ChainStopped, match="'trainflow resume'") as caught:
        commit(writer.store, request, day(5))

    state = state_of(writer)
    stop = state.stopped
    assert stop is not None
    assert (state.head, stop.parent_id, stop.split) == (parent, parent.id, request.split)
    assert (stop.metrics, stop.not_finite, stop.params, stop.seconds) == (BAD, {"gain": "nan"}, {"depth": 3}, 5.0)
    assert (stop.id, stop.artifacts, stop.by) == (request.checkpoint_id, request.artifacts, request.by)
    assert stop.reasons == ["auc >= 0.6: it is 0.5"] == list(caught.value.reasons)
    assert (caught.value.checkpoint_id, caught.value.sequence) == (stop.id, stop.sequence)
    sound(writer)


@pytest.mark.parametrize("count", PREFIXES)
def test_stop_is_written_once_wherever_it_was_cut(writer: ChainWriter, count: int) -> None:
    writer.commit()
    request = refused(writer, "stop")
    work = Commit(Ledger(writer.store, writer.chain), request, day(5))
    with_stop = 0
    for _, step in STEPS[:count]:
        try:
            step(work)
        except ChainStopped:
            with_stop = 1
            break

    for _ in range(2):
        with pytest.raises(ChainStopped) as caught:
            commit(writer.store, request, day(6))
        assert caught.value.checkpoint_id == request.checkpoint_id
    assert state_of(writer).sequence == 2
    stop = state_of(writer).stopped
    assert stop is not None
    assert stop.at == (day(5) if with_stop else day(6))


def test_stop_refuses_further_commits(writer: ChainWriter) -> None:
    parent = writer.commit()
    other = writer.request(parent=parent)
    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "stop"), day(5))

    with pytest.raises(ChainStopped) as caught:
        commit(writer.store, other, day(6))

    assert caught.value.checkpoint_id != other.checkpoint_id
    assert state_of(writer).sequence == 2


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

    with pytest.raises(ArtifactCorrupt, match="'trainflow resume' without an option"):
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


def test_stop_admits_other_entries(writer: ChainWriter) -> None:
    made = writer.commit_many(3)
    request = refused(writer, "stop")
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))

    prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(6))

    stop = state_of(writer).stopped
    assert stop is not None
    accept(writer.ledger, stop.id, person="ada", now=day(7))
    assert [each.id for each in state_of(writer).recent] == [made[2].id, stop.id]


# -- skip ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", PREFIXES)
@pytest.mark.parametrize("earlier", [0, 2])
def test_skip_is_written_once_wherever_it_was_cut(writer: ChainWriter, count: int, earlier: int) -> None:
    writer.commit_many(earlier)
    request = refused(writer, "skip", days=2)
    work = Commit(Ledger(writer.store, writer.chain), request, day(5))
    for _, step in STEPS[:count]:
        step(work)

    done = commit(writer.store, request, day(6))
    assert commit(writer.store, request, day(7)) == done

    assert isinstance(done, Skip)
    state = state_of(writer)
    assert state.sequence == earlier + 1
    assert state.head_sequence == earlier
    assert state.skips == [HoleRecord(day(earlier), day(earlier + 2), "auc >= 0.6: it is 0.5")]
    assert done.refused is not None
    assert done.refused.checkpoint_id == request.checkpoint_id
    assert done.at == (day(6) if count <= STEPS_BEFORE_APPEND else day(5))
    sound(writer)


STEPS_BEFORE_APPEND = [name for name, _ in STEPS].index("append")


def test_next_split_records_what_was_skipped(writer: ChainWriter) -> None:
    writer.commit()
    for _ in range(2):
        state = state_of(writer)
        split = after_skips(writer) if state.skips else None
        commit(writer.store, refused(writer, "skip", split=split), day(5))
    assert [(each.start, each.end) for each in state_of(writer).skips] == [(day(1), day(2)), (day(2), day(3))]

    request = writer.request(parent=state_of(writer).head, split=after_skips(writer), metrics={"auc": 0.9})
    made = commit(writer.store, request, day(6))

    assert isinstance(made, Checkpoint)
    assert made.watermark == day(4)
    assert [hole.reason for hole in made.split.holes] == ["auc >= 0.6: it is 0.5"] * 2
    assert state_of(writer).skips == []
    sound(writer)


def test_split_that_was_skipped_meanwhile_is_not_committed(writer: ChainWriter) -> None:
    parent = writer.commit()
    slow = writer.request(parent=parent)
    commit(writer.store, refused(writer, "skip"), day(5))

    with pytest.raises(ChainMoved, match="has stepped over what it trained on"):
        commit(writer.store, slow, day(6))


# -- rewind --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", PREFIXES)
@pytest.mark.parametrize(("steps", "target"), [(1, 1), (2, 0), (3, None), (9, None)])
def test_rewind_is_written_once_wherever_it_was_cut(
    writer: ChainWriter, count: int, steps: int, target: int | None
) -> None:
    made = writer.commit_many(3)
    request = refused(writer, f"rewind {steps}")
    work = Commit(Ledger(writer.store, writer.chain), request, day(5))
    for _, step in STEPS[:count]:
        step(work)

    done = commit(writer.store, request, day(6))
    assert commit(writer.store, request, day(7)) == done

    assert isinstance(done, Rewind)
    state = state_of(writer)
    assert (state.sequence, state.generation) == (4, 1)
    assert state.head == (None if target is None else made[target])
    assert (done.cause, done.reason) == ("gate", "auc >= 0.6: it is 0.5")
    assert state.retried == [HoleRecord(day(3), day(4), "auc >= 0.6: it is 0.5")]
    sound(writer)


@pytest.mark.parametrize("by_person", [False, True])
def test_rewind_of_gate_gives_alias_back(writer: ChainWriter, by_person: bool) -> None:
    made = writer.commit_many(3)
    for each in (made[0], made[2]):
        promote(writer.ledger, each.id, "champion", by=ME, now=day(4))
    request = refused(writer, "stop" if by_person else "rewind 2")
    if by_person:
        with pytest.raises(ChainStopped):
            commit(writer.store, request, day(5))
        rewind_refused(writer.ledger, request.checkpoint_id, 2, by=ME, now=day(6))
    else:
        commit(writer.store, request, day(5))

    state = state_of(writer)
    assert (state.head, state.promoted, state.demoted) == (
        made[0],
        {"champion": made[0].id},
        {"champion": [made[2].id]},
    )
    sound(writer)


def test_second_refusal_at_same_split_stops(writer: ChainWriter) -> None:
    writer.commit_many(3)
    commit(writer.store, refused(writer, "rewind 2"), day(5))
    writer.commit_many(2)

    with pytest.raises(ChainStopped, match="a rewind was tried at this split already"):
        commit(writer.store, refused(writer, "rewind 2"), day(6))

    assert state_of(writer).generation == 1
    sound(writer)


def test_gate_rewind_may_repeat_for_other_splits(writer: ChainWriter) -> None:
    writer.commit_many(3)
    commit(writer.store, refused(writer, "rewind 2"), day(5))
    writer.commit_many(4)

    assert isinstance(commit(writer.store, refused(writer, "rewind 1"), day(6)), Rewind)
    assert len(state_of(writer).retried) == 2
    # it reaches back over the first one, which has had its turn
    writer.commit()
    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "rewind 1"), day(7))


def test_manual_rewind_further_back_gives_splits_new_turn(writer: ChainWriter) -> None:
    made = writer.commit_many(3)
    commit(writer.store, refused(writer, "rewind 1"), day(5))
    head = state_of(writer).head
    assert head is not None

    rewind(writer.ledger, made[0].id, expected_head=head.id, by=ME, now=day(6))

    assert state_of(writer).retried == []


def test_gate_rewind_past_start_of_another_stage_stops(writer: ChainWriter, tmp_path: Path) -> None:
    made = writer.commit_many(3)
    stage = ChainWriter(writer.store, tmp_path, ChainKey("flights", "fine"))
    stage.runs = 100
    stage.commit(split=split_of(9), origin=CheckpointRef(writer.chain, made[1].id))

    with pytest.raises(ChainStopped, match=f"another stage or branch went on from {made[1].id}"):
        commit(writer.store, refused(writer, "rewind 2"), day(5))
    retry_refused(writer.ledger, stopped_over(writer), by=ME, now=day(6))

    assert isinstance(commit(writer.store, refused(writer, "rewind 1"), day(7)), Rewind)


def stopped_over(writer: ChainWriter) -> str:
    stop = state_of(writer).stopped
    assert stop is not None
    return stop.id


def test_manual_rewind_past_start_of_another_stage_is_refused(writer: ChainWriter, tmp_path: Path) -> None:
    made = writer.commit_many(3)
    stage = ChainWriter(writer.store, tmp_path, ChainKey("flights", "fine"))
    stage.runs = 100
    stage.commit(split=split_of(9), origin=CheckpointRef(writer.chain, made[2].id))
    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "stop"), day(5))

    with pytest.raises(InputError, match="rewind --cascade"):
        rewind_refused(writer.ledger, stopped_over(writer), 1, by=ME, now=day(6))


def test_repair_that_is_refused_stops(writer: ChainWriter) -> None:
    writer.commit(days=3, skip=[1])

    for action in ("skip", "rewind 1"):
        with pytest.raises(ChainStopped, match="it fills a hole"):
            commit(writer.store, refused(writer, action, split=split_of(1), fills=True), day(5))
        with pytest.raises(InputError, match="fills a hole"):
            skip_refused(writer.ledger, stopped_over(writer), by=ME, now=day(6))
        retry_refused(writer.ledger, stopped_over(writer), by=ME, now=day(6))

    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "stop", split=split_of(1), fills=True), day(7))
    made = accept(writer.ledger, stopped_over(writer), person="ada", now=day(8))
    assert made.watermark == day(3)
    assert state_of(writer).holes == []
    sound(writer)


# -- promotion -----------------------------------------------------------------------------------------------------

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


# -- what a reader refuses -----------------------------------------------------------------------------------------


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
        id=attempt_id(50),
        parent_id=made.id,
        split=split_of(1),
        watermark=day(2),
    )

    with pytest.raises(CheckpointError, match="it was accepted, yet the chain is not stopped"):
        writer.ledger.append(lambda _: forged)


# -- what a person has decided ----------------------------------------------------------------------------------------


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
    request = refused(writer, "stop", origin=CheckpointRef(base.chain, second.id), base=seen)
    with pytest.raises(ChainStopped):
        commit(writer.store, request, day(5))
    stop = state_of(writer).stopped
    assert stop is not None
    assert stop.base == seen
    rewind(base.ledger, first.id, expected_head=second.id, by=ME, now=day(6))

    with pytest.raises(InputError, match=r"which was undone since\. Train it again"):
        accept(writer.ledger, stop.id, person="ada", now=day(7))
    retry_refused(writer.ledger, stop.id, by=ME, now=day(7))
    assert state_of(writer).stopped is None
