"""What gates do to a chain: stop it, skip a split, rewind it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.unit.checkpoints.refused_commits import (
    BAD,
    ME,
    PREFIXES,
    after_skips,
    refused,
    sound,
    state_of,
    stopped_over,
)
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import STEPS, Commit, commit
from trainflow.checkpoints.ledger.entries import (
    Checkpoint,
    CheckpointRef,
    HoleRecord,
    Rewind,
    Skip,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.manual_decisions import accept, retry_refused, rewind_refused, skip_refused
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.stages.dependents import register_origin
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import (
    ChainMoved,
    ChainStopped,
    InputError,
)
from trainflow.testing.chains import ChainWriter, day, split_of


def test_stop_keeps_all_that_commit_needs(writer: ChainWriter) -> None:
    parent = writer.commit()
    request = refused(writer, "stop", evaluation={"gain": math.nan}, params={"depth": 3}, seconds=5.0)

    with pytest.raises(ChainStopped, match="'trainflow resume ") as caught:
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
    assert state.gate_rewinds == [HoleRecord(day(3), day(4), "auc >= 0.6: it is 0.5")]
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
    assert len(state_of(writer).gate_rewinds) == 2
    # it reaches back over the first one, which has had its turn
    writer.commit()
    with pytest.raises(ChainStopped):
        commit(writer.store, refused(writer, "rewind 1"), day(7))


def test_gate_rewind_past_start_of_another_stage_stops(writer: ChainWriter, tmp_path: Path) -> None:
    made = writer.commit_many(3)
    stage = ChainWriter(writer.store, tmp_path, ChainKey("flights", "fine"))
    stage.runs = 100
    stage.commit(split=split_of(9), origin=CheckpointRef(writer.chain, made[1].id))

    with pytest.raises(ChainStopped, match=f"another stage or branch went on from {made[1].id}"):
        commit(writer.store, refused(writer, "rewind 2"), day(5))
    retry_refused(writer.ledger, stopped_over(writer), by=ME, now=day(6))

    assert isinstance(commit(writer.store, refused(writer, "rewind 1"), day(7)), Rewind)


def test_gate_rewind_that_chain_may_have_gone_on_from_stops(writer: ChainWriter) -> None:
    """Whose ledger cannot be read, so that it is not known what was trained from what is to be undone."""
    writer.commit_many(3)
    other = ChainKey("flights", "fine")
    register_origin(writer.store, writer.chain, other)
    writer.store.create_exclusive(other.entry(1), b"torn")

    with pytest.raises(ChainStopped, match=r"cannot be rewound: ledger entry .*fine.* is torn"):
        commit(writer.store, refused(writer, "rewind 2"), day(5))

    accept(writer.ledger, stopped_over(writer), person="ada", now=day(8))


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
