"""Where the stages of a pipeline are forked, so that they fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import CheckpointRef
from trainflow.checkpoints.ledger_changes.fork import LineCheckpoint, fork_points, line_checkpoints
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, day

BASE, FINE, LAST = (ChainKey("model", stage) for stage in ("base", "fine", "last"))
Line = list[LineCheckpoint]


def line(
    chain: ChainKey, *days: int, of: dict[int, tuple[ChainKey, int]] | None = None, gone: tuple[int, ...] = ()
) -> Line:
    """A checkpoint for each of these watermarks, called after its chain and day. `of`: the day of each checkpoint whose
    weights came from elsewhere; `gone`: pruned."""
    of = of or {}
    return [
        LineCheckpoint(
            id=f"{chain.stage}{number}",
            number=place,
            watermark=day(number),
            kept=number not in gone,
            origin=CheckpointRef(of[number][0], f"{of[number][0].stage}{of[number][1]}") if number in of else None,
        )
        for place, number in enumerate(days, start=1)
    ]


def each_from(chain: ChainKey, **pairs: int) -> dict[int, tuple[ChainKey, int]]:
    """`d3=4`: day 3 came from day 4 of the chain."""
    return {int(name[1:]): (chain, number) for name, number in pairs.items()}


FOLLOWS = each_from(BASE, d1=1, d2=2, d3=3)


@pytest.mark.parametrize(
    ("lines", "before", "expected"),
    [
        # every head
        ([line(BASE, 1, 2, 3), line(FINE, 1, 2, 3, of=FOLLOWS)], None, ["base3", "fine3"]),
        # up to a date, exclusive as watermarks are
        ([line(BASE, 1, 2, 3), line(FINE, 1, 2, 3, of=FOLLOWS)], 2, ["base2", "fine2"]),
        ([line(BASE, 2, 4), line(FINE, 1, 2, of=each_from(BASE, d1=2, d2=2))], 3, ["base2", "fine2"]),
        # nothing there yet
        ([line(BASE, 1, 2), line(FINE, 2, of=each_from(BASE, d2=2))], 1, ["base1", None]),
        ([line(BASE, 1), []], None, ["base1", None]),
        ([line(BASE, 3), line(FINE, 3, of=each_from(BASE, d3=3))], 1, [None, None]),
        # the weights of the third day of the follower know the fourth day of the base, which is not in the branch
        ([line(BASE, 2, 4), line(FINE, 1, 2, 3, of=each_from(BASE, d1=2, d2=2, d3=4))], 3, ["base2", "fine2"]),
        # the follower committed what its base had made after the base's line was read
        ([line(BASE, 1), line(FINE, 1, 2, of=FOLLOWS)], None, ["base1", "fine1"]),
        # its first checkpoint came from the base, all others from that
        ([line(BASE, 1, 2, 3), line(FINE, 1, 2, of=each_from(BASE, d1=3))], 2, ["base2", None]),
        ([line(BASE, 1, 2, 3), line(FINE, 1, 2, 3, of=each_from(BASE, d1=1))], 2, ["base2", "fine2"]),
        # a base that is not forked along concerns no one else
        ([line(FINE, 1, 2, of=FOLLOWS)], None, ["fine2"]),
        # files that are gone
        ([line(BASE, 1, 2, 3, gone=(2,)), line(FINE, 1, 2, 3, of=FOLLOWS)], 2, ["base1", "fine1"]),
        ([line(BASE, 1, 2, 3), line(FINE, 1, 2, 3, of=FOLLOWS, gone=(1, 2))], 2, ["base2", None]),
        # one after the other: what the last came from goes as well
        (
            [
                line(BASE, 2, 4),
                line(FINE, 1, 3, of=each_from(BASE, d1=2, d3=4)),
                line(LAST, 1, 3, of=each_from(FINE, d1=1, d3=3)),
            ],
            3,
            ["base2", "fine1", "last1"],
        ),
        # a circle: the first of day D came from the last of day D-1
        (
            [line(BASE, 1, 2, 3, of=each_from(FINE, d2=1, d3=2)), line(FINE, 1, 2, of=FOLLOWS)],
            None,
            ["base3", "fine2"],
        ),
        (
            [line(BASE, 1, 2, 3, of=each_from(FINE, d2=1, d3=2)), line(FINE, 1, 2, of=FOLLOWS, gone=(2,))],
            None,
            ["base2", "fine1"],
        ),
    ],
)
def test_branch_points_of_stages_fit_together(
    lines: list[Line], before: int | None, expected: list[str | None]
) -> None:
    keys = [ChainKey("model", each[0].id.rstrip("0123456789")) if each else FINE for each in lines]
    found = fork_points(dict(zip(keys, lines, strict=True)), None if before is None else day(before))
    assert [place and place.id for place in found.values()] == expected


def test_branch_points_forked_by_hand_are_kept() -> None:
    lines = {BASE: line(BASE, 1, 2, 3), FINE: line(FINE, 1, 2, 3, of=FOLLOWS)}
    found = fork_points(lines, None, {BASE: "base2"})
    assert [place and place.id for place in found.values()] == ["base2", "fine2"]
    # of a checkpoint that is on no line any more, none can have come
    assert [place and place.id for place in fork_points(lines, None, {BASE: "another"}).values()] == [None, None]


def test_line_of_ledger(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    base, fine = (ChainWriter(store, tmp_path / key.stage, key) for key in (BASE, FINE))
    of_base = base.commit_many(3)
    made = [fine.commit(origin=CheckpointRef(BASE, each.id)) for each in of_base]
    rewind(fine.ledger, made[1].id, expected_head=made[2].id, by=made[0].by, now=day(9))
    last = fine.commit()
    prune(fine.ledger, [KeepLatest(2)], by=made[0].by, now=day(9))

    assert line_checkpoints(fine.ledger) == [
        LineCheckpoint(made[0].id, 1, day(1), False, CheckpointRef(BASE, of_base[0].id)),
        LineCheckpoint(made[1].id, 2, day(2), True, CheckpointRef(BASE, of_base[1].id)),
        LineCheckpoint(last.id, 4, day(3), True, None),
    ]
