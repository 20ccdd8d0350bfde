from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger.entries import ArtifactFile, Artifacts, Author, Checkpoint, CheckpointRef, Prune
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary
from trainflow.checkpoints.ledger_changes.fork import fork
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.stages.dependents import (
    add_dependent,
    references,
    register_origin,
    registered_chains,
    remove_dependent,
    still_needed,
)
from trainflow.checkpoints.stages.init_from import Dependent
from trainflow.checkpoints.upkeep.retention import (
    KeepAll,
    KeepBest,
    KeepDaily,
    KeepEvery,
    KeepLatest,
    KeepWeekly,
    Policy,
    removable,
)
from trainflow.errors import StoreFailure
from trainflow.testing.chains import ChainWriter, day, split_of
from trainflow.testing.faulty_store import FaultyStore

ME = Author("prune")


def line(count: int, metrics: dict[int, float] | None = None, scores: dict[int, float] | None = None) -> ChainState:
    def named(values: dict[int, float] | None, number: int) -> dict[str, float]:
        return {"auc": values[number]} if values and number in values else {}

    summaries = [
        CheckpointSummary(
            id=f"c{number}",
            sequence=number,
            parent_id=f"c{number - 1}" if number > 1 else None,
            watermark=day(number),
            run_id="",
            number=number,
            place=number,
            partitions=number,
            size=1,
            at=day(number),
            digest="",
            on_line=True,
            metrics=named(metrics, number),
            scores=named(scores, number),
        )
        for number in range(1, count + 1)
    ]
    return ChainState(sequence=count, recent=summaries)


AUC = {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.9, 5: 0.1}


@pytest.mark.parametrize(
    ("policies", "kept"),
    [
        ([], "12345"),
        ([KeepAll()], "12345"),
        ([KeepAll(), KeepLatest(1)], "12345"),
        ([KeepLatest(2)], "45"),
        ([KeepLatest(9)], "12345"),
        ([KeepEvery(2)], "24"),
        ([KeepEvery(2), KeepLatest(1)], "245"),
        ([KeepBest("auc")], "4"),
        ([KeepBest("auc", count=3)], "234"),
        ([KeepBest("auc", "min", 2)], "15"),
        ([KeepBest("nothing")], ""),
        ([KeepDaily(2)], "45"),
        ([KeepWeekly(1)], "5"),
    ],
)
def test_policies_keep_union(policies: list[Policy], kept: str) -> None:
    state = line(5, AUC)

    assert removable(state, state.recent, policies) == [each.id for each in state.recent if each.id[1:] not in kept]


def test_retention_best_is_judged_by_score_on_unseen_samples() -> None:
    state = line(3, metrics={1: 0.9, 2: 0.8, 3: 0.99}, scores={1: 0.5, 2: 0.6})

    assert removable(state, state.recent, [KeepBest("auc")]) == ["c1", "c3"]


def test_retention_pinned_checkpoints_stay() -> None:
    assert removable(line(4), line(4).recent, [KeepLatest(1)], pinned={"c2"}) == ["c1", "c3"]


@pytest.mark.parametrize(
    "policy", [KeepAll(), KeepLatest(3), KeepEvery(2), KeepBest("auc", "min", 2), KeepDaily(1), KeepWeekly(2)]
)
def test_policies_are_plain_json(policy: Policy) -> None:
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


def attempts(writer: ChainWriter) -> list[str]:
    return writer.store.folders(writer.chain.artifacts)


def test_pruning_deletes_files_and_keeps_record(writer: ChainWriter) -> None:
    made = [each.id for each in writer.commit_many(5)]

    assert prune(writer.ledger, [KeepLatest(2)], by=ME, now=day(9), dry_run=True) == made[:3]
    assert len(attempts(writer)) == 5
    assert prune(writer.ledger, [KeepLatest(2)], by=ME, now=day(9)) == made[:3]

    assert attempts(writer) == sorted(made[3:])
    entries = list(writer.ledger.entries())
    assert [each.sequence for each in entries] == [1, 2, 3, 4, 5, 6]
    assert isinstance(entries[-1], Prune)
    assert entries[-1].checkpoint_ids == made[:3]
    assert prune(writer.ledger, [KeepLatest(2)], by=ME, now=day(9)) == []
    assert writer.commit().sequence == 7


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fail_at", range(1, 9))
def test_prune_killed_anywhere_is_finished_by_next(writer: ChainWriter, fail_at: int, when: str) -> None:
    made = [each.id for each in writer.commit_many(4)]
    faulty = FaultyStore(writer.store, fail_at=fail_at, when=when)  # type: ignore[arg-type]
    try:
        prune(Ledger(faulty, writer.chain), [KeepLatest(2)], by=ME, now=day(9))
        failed = False
    except StoreFailure:
        failed = True
    recorded = {name for each in writer.ledger.entries() if isinstance(each, Prune) for name in each.checkpoint_ids}
    assert set(made) - set(attempts(writer)) <= recorded

    prune(Ledger(writer.store, writer.chain), [KeepLatest(2)], by=ME, now=day(9))

    assert attempts(writer) == sorted(made[2:])
    # a lost reply to the creation itself is no failure: the entry's bytes show whose it is
    lost_reply = when == "after" and faulty.calls[fail_at - 1] == "create_exclusive"
    assert failed is not lost_reply
    assert Ledger(writer.store, writer.chain).state().head_sequence == 4


def test_retention_rewound_checkpoints_go_and_target_stays(writer: ChainWriter) -> None:
    made = [each.id for each in writer.commit_many(4)]
    rewind(writer.ledger, made[1], expected_head=made[3], by=ME, now=day(9))

    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9)) == [made[0], made[2], made[3]]


def test_retention_start_of_another_stage_stays(writer: ChainWriter, tmp_path: Path) -> None:
    made = writer.commit_many(4)
    stage = ChainWriter(writer.store, tmp_path, ChainKey("flights", "fine"))
    stage.runs = 100
    request = stage.request(origin=CheckpointRef(writer.chain, made[1].id))
    commit(writer.store, msgspec.structs.replace(request, split=split_of(2)), day(9))

    assert references(writer.store, writer.chain) == {made[1].id}
    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9)) == [made[0].id, made[2].id]


def hourly(hours: int) -> list[CheckpointSummary]:
    """A checkpoint an hour from 2013-01-01, a Tuesday; `c3` has trained up to 03:00."""
    return [
        msgspec.structs.replace(each, watermark=day(0) + timedelta(hours=each.sequence)) for each in line(hours).recent
    ]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        # midnight ends the day before
        (KeepDaily(9), {"c24", "c48", "c50"}),
        (KeepDaily(2), {"c48", "c50"}),
        (KeepWeekly(9), {"c50"}),
    ],
)
def test_retention_one_a_day_keeps_last_trained_of_day(policy: Policy, kept: set[str]) -> None:
    assert policy.keep(hourly(50)) == kept


def test_week_goes_from_monday_to_sunday() -> None:
    # Sunday 2013-01-06 ends after 144 hours, the next one after 312
    assert KeepWeekly(9).keep(hourly(320)) == {"c144", "c312", "c320"}
    assert KeepWeekly(2).keep(hourly(320)) == {"c312", "c320"}


def after(head: int | None) -> ChainState:
    """A follower whose head has trained `head` days and was committed on day `head`."""
    return ChainState() if head is None else line_with_head(head)


def line_with_head(count: int) -> ChainState:
    split = split_of(count - 1)
    artifacts = Artifacts("x", [ArtifactFile("m", 1, "sha256:0")])
    head = Checkpoint(
        sequence=count, previous="", at=day(count), by=ME, id="f", parent_id=None,
        watermark=split.end, split=split, artifacts=artifacts,
    )  # fmt: skip
    return ChainState(sequence=count, head=head)


@pytest.mark.parametrize(
    ("dependent", "head", "needed"),
    [
        (Dependent(ChainKey("f"), "same_watermark"), None, "12345"),
        (Dependent(ChainKey("f"), "same_watermark"), 3, "345"),
        (Dependent(ChainKey("f"), "same_watermark", once=True), None, "12345"),
        (Dependent(ChainKey("f"), "same_watermark", once=True), 3, ""),
        # its run began after day 3: with what was the newest then, or one that came since
        (Dependent(ChainKey("f"), "latest"), 3, "2345"),
        (Dependent(ChainKey("f"), "promoted"), None, "12345"),
    ],
)
def test_retention_unpassed_by_next_stage_stays(dependent: Dependent, head: int | None, needed: str) -> None:
    assert still_needed(dependent, after(head), line(5).recent) == {f"c{each}" for each in needed}


def test_retention_follower_on_a_host_whose_clock_is_ahead_keeps_what_it_may_have_begun_with() -> None:
    kept, follower = line(5).recent, line_with_head(4)
    assert follower.head is not None
    at = kept[3].at + timedelta(seconds=30)
    ahead = msgspec.structs.replace(follower, head=msgspec.structs.replace(follower.head, at=at))
    # of c4 and c3 either was the newest when its run began
    assert still_needed(Dependent(ChainKey("f"), "latest"), ahead, kept) == {"c3", "c4", "c5"}


def test_retention_first_of_circle_needs_one_before_skips() -> None:
    kept = [each for each in line(5).recent if each.id != "c3"]
    for feedback, needed in ((True, {"c2", "c4", "c5"}), (False, {"c4", "c5"})):
        dependent = Dependent(ChainKey("f"), "same_watermark", feedback=feedback)
        assert still_needed(dependent, after(3), kept) == needed


def test_pruning_keeps_what_follower_has_not_passed(writer: ChainWriter, tmp_path: Path) -> None:
    made = [each.id for each in writer.commit_many(5)]
    fine = ChainWriter(writer.store, tmp_path / "fine", ChainKey("flights", "fine"))
    dependent = Dependent(fine.chain, "same_watermark")

    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9), dependents=[dependent]) == []
    fine.commit(days=3, origin=CheckpointRef(writer.chain, made[2]))

    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9), dependents=[dependent]) == made[:2]


def test_pruning_keeps_what_chain_of_another_pipeline_goes_on_from(writer: ChainWriter, tmp_path: Path) -> None:
    made = [each.id for each in writer.commit_many(4)]
    nights = ChainWriter(writer.store, tmp_path / "nights", ChainKey("nights"))
    nights.commit(origin=CheckpointRef(writer.chain, made[0]))
    nights.commit(origin=CheckpointRef(writer.chain, made[2]))
    # what cannot have been registered is passed over
    writer.store.replace(f"{writer.chain.dependents}/README", b"")

    assert references(writer.store, writer.chain) == {made[0], made[2]}
    assert registered_chains(writer.store, writer.chain)[-1:] == [nights.chain]
    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9)) == [made[1]]


@pytest.mark.parametrize(
    ("said", "gone"),
    [
        # what it has not passed, and what it began with and last went on from
        (Dependent(ChainKey("nights"), "same_watermark"), [1]),
        # the newest since its last run began
        (Dependent(ChainKey("nights"), "latest"), []),
        (Dependent(ChainKey("nights"), "latest", once=True), [1, 3, 4]),
        (None, [1, 3, 4]),
        # as a newer trainflow says it: what it needs is not known
        (b"{}", [1]),
    ],
)
def test_pruning_keeps_what_stage_of_another_pipeline_has_not_passed(
    writer: ChainWriter, tmp_path: Path, said: Dependent | bytes | None, gone: list[int]
) -> None:
    made = [each.id for each in writer.commit_many(6)]
    nights = ChainWriter(writer.store, tmp_path / "nights", ChainKey("nights"))
    if isinstance(said, Dependent):
        add_dependent(writer.store, writer.chain, said)
    # one that has trained nothing may need every one
    begins = prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9), dry_run=True)
    assert begins == ([] if isinstance(said, Dependent) else made[:5])
    for number in (0, 2):
        nights.commit(origin=CheckpointRef(writer.chain, made[number]), days=number + 1)
        nights.runs += 1
    if isinstance(said, bytes):
        writer.store.replace(f"{writer.chain.dependents}/nights/main/main", said)
    # a commit says again that it depends, and takes nothing back
    register_origin(writer.store, writer.chain, nights.chain)

    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9), dry_run=True) == [made[number] for number in gone]
    assert remove_dependent(writer.store, writer.chain, nights.chain) is (said is not None)
    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9)) == [made[number] for number in (1, 3, 4)]


def test_pruning_keeps_fork_points_and_promoted_checkpoints(writer: ChainWriter) -> None:
    made = writer.commit_many(4)
    fork(
        Ledger(writer.store, ChainKey("flights", "main", "deeper")),
        CheckpointRef(writer.chain, made[1].id),
        made[1].watermark,
        by=ME,
        now=day(9),
    )
    promote(writer.ledger, made[2].id, "champion", by=ME, now=day(9))

    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9)) == [made[0].id]


def test_newest_are_looked_at_first(writer: ChainWriter) -> None:
    made = [each.id for each in writer.commit_many(3)]

    assert [each.id for each in writer.ledger.back()] == made[::-1]
