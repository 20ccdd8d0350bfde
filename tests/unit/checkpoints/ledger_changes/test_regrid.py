"""A chain goes on with another grid: the entry, what it changes, what it refuses, and what an audit says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.ledger.entries import (
    Author,
    CheckpointRef,
    HoleRecord,
    Regrid,
    SplitSummary,
    TrainedPartition,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.rules import change_of
from trainflow.checkpoints.ledger_changes.fork import fork
from trainflow.checkpoints.ledger_changes.regrid import compare, refuse_change, regrid
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.errors import ChainMoved, ChainStopped, CheckpointError, InputError
from trainflow.samples.grid import Grid
from trainflow.samples.grid_change import EARLIER
from trainflow.samples.spec import Samples
from trainflow.testing.chains import ChainWriter, day, fingerprint_of, split_of

DAYS = Grid("d/{start:%Y-%m-%d}/", day(0), 86_400)
PAIRS = msgspec.structs.replace(DAYS, length_seconds=2 * 86_400)
ODD_PAIRS = msgspec.structs.replace(PAIRS, start=day(1))
BY = Author(person="ada@host")


def to(writer: ChainWriter, grid: Grid, **more: Any) -> Regrid | None:
    head = writer.ledger.state().head
    return regrid(writer.ledger, grid, expected_head=head.id if head else None, by=BY, now=day(99), **more)


def of(grid: Grid) -> Samples:
    return Samples(path=grid.path, start=grid.start, length_seconds=grid.length_seconds)


def pair(first: int) -> SplitSummary:
    start, end = day(first), day(first + 2)
    return SplitSummary(start, end, [TrainedPartition(start, end, fingerprint_of(start), 10)])


def ok(writer: ChainWriter, grid: Grid) -> list[str]:
    return audit(Ledger(writer.store, writer.chain), of(grid), verify_files=False).problems


def test_checkpoint_records_grid_it_was_trained_on(writer: ChainWriter) -> None:
    writer.commit(grid=DAYS)
    assert Ledger(writer.store, writer.chain).state().grid == DAYS


def test_chain_of_which_no_grid_is_recorded_is_left_alone(writer: ChainWriter) -> None:
    writer.commit()
    assert change_of(writer.ledger.state(), PAIRS) is None
    writer.commit(grid=DAYS)
    assert change_of(writer.ledger.state(), PAIRS) is not None


def test_regrid_new_grid_holds_from_end_of_chain(writer: ChainWriter) -> None:
    writer.commit_many(4, grid=DAYS)
    with pytest.raises(InputError, match="'trainflow regrid flights'"):
        refuse_change(writer.ledger, PAIRS)
    written = to(writer, PAIRS, reason="fewer")
    assert written is not None
    assert (written.watermark, written.holes, written.grid) == (day(4), [], PAIRS)
    assert writer.ledger.state().grid == PAIRS
    refuse_change(writer.ledger, PAIRS)
    assert to(writer, PAIRS) is None
    writer.commit(split=pair(4), grid=PAIRS)
    assert ok(writer, PAIRS) == []
    assert Ledger(writer.store, writer.chain).state() == writer.ledger.state()
    assert any("was 2d long and is 1d" in problem for problem in ok(writer, DAYS))


def test_regrid_with_partitions_across_chain_end_is_refused(writer: ChainWriter) -> None:
    writer.commit_many(3, grid=DAYS)
    with pytest.raises(InputError, match="where no partition of the new grid begins"):
        to(writer, PAIRS)
    rewind(writer.ledger, writer.ledger.line()[1].id, expected_head=writer.ledger.line()[2].id, by=BY, now=day(99))
    assert to(writer, PAIRS) is not None


def test_regrid_to_earlier_start_leaves_fillable_hole(writer: ChainWriter) -> None:
    writer.commit(split=split_of(3), grid=msgspec.structs.replace(DAYS, start=day(3)))
    problems = ok(writer, DAYS)
    assert any("nothing was trained on [2013-01-01" in problem for problem in problems)
    written = to(writer, DAYS)
    assert written is not None
    assert written.holes == [HoleRecord(day(0), day(3), EARLIER)]
    assert ok(writer, DAYS) == []
    assert [each.hole for each in writer.ledger.state().holes] == written.holes
    filled = writer.commit(split=split_of(0, 2), grid=DAYS, fills=True)
    assert filled.watermark == day(4)
    assert [(each.hole.start, each.hole.end) for each in writer.ledger.state().holes] == [(day(2), day(3))]
    assert ok(writer, DAYS) == []


def test_rewind_to_before_it_takes_it_back(writer: ChainWriter) -> None:
    first = writer.commit(split=split_of(2), grid=msgspec.structs.replace(DAYS, start=day(2)))
    second = writer.commit(grid=msgspec.structs.replace(DAYS, start=day(2)))
    to(writer, DAYS)
    third = writer.commit(grid=DAYS)
    rewind(writer.ledger, second.id, expected_head=third.id, by=BY, now=day(99))
    state = writer.ledger.state()
    assert (state.grid, state.holes, state.first) == (first.grid, [], day(2))
    assert any("nothing was trained" in problem for problem in ok(writer, DAYS))
    assert to(writer, DAYS) is not None
    assert ok(writer, DAYS) == []


def test_rewind_to_beginning_lets_chain_begin_with_another_grid(writer: ChainWriter) -> None:
    head = writer.commit(grid=DAYS)
    rewind(writer.ledger, None, expected_head=head.id, by=BY, now=day(99))
    assert change_of(writer.ledger.state(), PAIRS) is None
    writer.commit(split=pair(0), grid=PAIRS)
    assert ok(writer, PAIRS) == []


def test_branch_may_have_another_grid_from_start(writer: ChainWriter, tmp_path: Path) -> None:
    head = writer.commit_many(2, grid=DAYS)[-1]
    branch = ChainWriter(writer.store, tmp_path / "b", ChainKey("flights", "main", "hot"))
    origin = CheckpointRef(writer.chain, head.id)
    fork(branch.ledger, origin, head.watermark, by=BY, now=day(99))
    earlier = msgspec.structs.replace(PAIRS, start=day(-2))
    assert change_of(branch.ledger.state(), earlier) is None
    branch.commit(split=pair(2), grid=earlier, origin=origin)
    assert change_of(branch.ledger.state(), earlier) is None
    assert ok(branch, earlier) == []


def test_regrid_refuses_commit_trained_on_old_grid(writer: ChainWriter) -> None:
    head = writer.commit_many(2, grid=DAYS)[-1]
    to(writer, PAIRS)
    with pytest.raises(ChainMoved, match="goes on with another grid"):
        writer.commit(parent=head, grid=DAYS)


def test_regrid_grid_changes_only_by_its_entry(writer: ChainWriter) -> None:
    head = writer.commit_many(2, grid=DAYS)[-1]
    fields = {name: getattr(head, name) for name in ("artifacts", "by")}

    def forged(state: Any) -> Any:
        header = {**state.header(head.by, day(99))}
        split = pair(2)
        artifacts = msgspec.structs.replace(fields["artifacts"], path="flights/x")
        return type(head)(
            **header, id="x", parent_id=head.id, watermark=split.end, split=split, artifacts=artifacts, grid=PAIRS
        )

    with pytest.raises(CheckpointError, match="was 1d long and is 2d, and no entry says so"):
        writer.ledger.append(forged)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda entry: msgspec.structs.replace(entry, watermark=day(1)), "the chain ends at"),
        (lambda entry: msgspec.structs.replace(entry, parent_id="x"), "its parent is x"),
        (lambda entry: msgspec.structs.replace(entry, holes=[]), "does not record as a hole"),
        (lambda entry: msgspec.structs.replace(entry, grid=ODD_PAIRS), "no partition"),
    ],
)
def test_entry_that_breaks_rule_is_refused(
    writer: ChainWriter, change: Callable[[Regrid], Regrid], problem: str
) -> None:
    head = writer.commit(split=split_of(2, 2), grid=msgspec.structs.replace(DAYS, start=day(2)))
    hole = HoleRecord(day(0), day(2), EARLIER)

    def made(state: Any) -> Regrid:
        entry = Regrid(**state.header(BY, day(99)), parent_id=head.id, grid=DAYS, watermark=day(4), holes=[hole])
        return change(entry)

    with pytest.raises(CheckpointError, match=problem):
        writer.ledger.append(made)


def test_stopped_chain_is_decided_about_first(writer: ChainWriter) -> None:
    writer.commit_many(2, grid=DAYS)
    with pytest.raises(ChainStopped):
        writer.commit(grid=DAYS, gates=(Gate("auc >= 0.5"),), metrics={"auc": 0.1})
    with pytest.raises(InputError, match="decide first"):
        to(writer, PAIRS)


def test_table_that_has_moved_is_known_by_its_content(writer: ChainWriter) -> None:
    writer.commit_many(3, grid=DAYS)
    moved = msgspec.structs.replace(DAYS, path="/new/{start:%Y-%m-%d}/")
    same = compare(writer.ledger, lambda starts: [fingerprint_of(each) for each in starts])
    part = compare(writer.ledger, lambda starts: [fingerprint_of(starts[0]), None, None])
    other = compare(writer.ledger, lambda starts: [fingerprint_of(starts[0]), "another", None])
    gone = compare(writer.ledger, lambda starts: [None] * len(starts))
    assert (same.same, part.same, part.missing, len(other.other), gone.same) == (3, 1, 2, 1, 0)
    for compared in (None, gone):
        with pytest.raises(InputError, match="nothing of what was trained is there"):
            to(writer, moved, compared=compared)
    with pytest.raises(InputError, match="it is another table: 1 partition"):
        to(writer, moved, compared=other)
    written = to(writer, moved, compared=part)
    assert written is not None
    assert written.compared == 1
    writer.commit(grid=moved)
    assert ok(writer, moved) == []


def test_comparing_needs_no_more_than_newest(writer: ChainWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.checkpoints.ledger_changes.regrid.COMPARED", 2)
    writer.commit_many(5, grid=DAYS)
    asked: list[datetime] = []
    compare(writer.ledger, lambda starts: asked.extend(starts) or [None] * len(starts))
    assert sorted(asked) == [day(3), day(4)]


def test_head_that_moved_meanwhile_is_left_alone(writer: ChainWriter) -> None:
    first, _ = writer.commit_many(2, grid=DAYS)
    with pytest.raises(ChainMoved):
        regrid(writer.ledger, PAIRS, expected_head=first.id, by=BY, now=day(99))


def test_audit_finds_grid_that_was_changed_by_hand(writer: ChainWriter) -> None:
    """The audit's own reckoning, over a line whose checkpoints disagree."""
    from trainflow.checkpoints.audit.audit import regrid_problems
    from trainflow.checkpoints.audit.raw_ledger import read_raw

    writer.commit_many(2, grid=DAYS)
    raw = read_raw(writer.ledger).entries
    assert regrid_problems(raw, []) == []  # type: ignore[arg-type]
    last = raw[-1]
    assert last.grid is not None
    forged = msgspec.structs.replace(last, grid=msgspec.structs.replace(last.grid, length_seconds=3600))
    assert "no entry says so" in regrid_problems([raw[0], forged], [])[0]  # type: ignore[list-item]


def test_start_in_another_zone_is_same_start(writer: ChainWriter) -> None:
    writer.commit(grid=DAYS)
    shifted = datetime(2013, 1, 1, tzinfo=UTC).astimezone()
    assert change_of(writer.ledger.state(), msgspec.structs.replace(DAYS, start=shifted)) is None
