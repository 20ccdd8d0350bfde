"""From which checkpoint of its base does the next run of a stage start, and how far may its split go?"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import CheckpointSummary
from trainflow.checkpoints.ledger_changes.rewind import skip
from trainflow.checkpoints.stages.init_from import InitFrom, Pin
from trainflow.checkpoints.stages.start_checkpoint import (
    MOST,
    StartDecision,
    StartFrom,
    StartFromOwn,
    StartRefused,
    UpstreamChain,
    WaitForUpstream,
    choose_start,
    read_upstream_chain,
)
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, day

BASE = ChainKey("model", "base")
MAIN = ChainKey("model", "base", "elsewhere")
AHEAD = InitFrom(BASE, "same_watermark")
BACK = InitFrom(BASE, "same_watermark", feedback=True)
LATEST = InitFrom(BASE, "latest")
PROMOTED = InitFrom(BASE, "promoted")
ONCE = InitFrom(BASE, "latest", once=True)


def chain(
    *days: int,
    gone: tuple[int, ...] = (),
    off: tuple[int, ...] = (),
    promoted: int | None = None,
    skipped: int | None = None,
) -> UpstreamChain:
    """A checkpoint a day, named by the day its watermark is; `gone`: pruned, `off`: rewound, `skipped`: up to there."""
    kept = [
        CheckpointSummary(
            id=f"c{number}",
            sequence=place,
            parent_id=None,
            watermark=day(number),
            run_id="r",
            number=place,
            place=place,
            partitions=1,
            size=1,
            at=day(number),
            digest="",
            on_line=number not in off,
            metrics={},
            scores={},
        )
        for place, number in enumerate(days, start=1)
        if number not in gone
    ]
    aliases = {} if promoted is None else {"best": f"c{promoted}"}
    line = [summary.watermark for summary in kept if summary.on_line]
    edge = line[-1] if line else None
    return UpstreamChain(len(days) + len(off), at(skipped) if skipped else edge, kept, aliases)


def forked_at(number: int, *days: int) -> UpstreamChain:
    """The same of a branch, which was forked from `f` at a watermark."""
    branch = chain(*days)
    point = msgspec.structs.replace(chain(number).kept[0], id="f", sequence=0, number=0, place=0)
    return UpstreamChain(branch.last_number + 1, branch.edge or day(number), [point, *branch.kept], {}, MAIN)


def pin(number: int, called: int | None = None) -> Pin:
    return Pin(BASE, f"c{number}", called)


def at(number: int | None) -> datetime | None:
    return None if number is None else day(number)


def offered(choice: StartDecision) -> list[str]:
    assert isinstance(choice, StartFrom), choice
    return [base.id for base in choice.candidates]


@pytest.mark.parametrize(
    ("base", "own", "told", "bases"),
    [
        # nothing trained yet: the first one, and those after it if the first is not enough
        (chain(1, 2, 3), None, None, ["c1", "c2", "c3"]),
        (chain(1, 2, 3), 1, None, ["c2", "c3"]),
        (chain(3, 6), 4, None, ["c6"]),
        # a pin is an upper bound
        (chain(1, 2, 3), None, pin(2), ["c1", "c2"]),
        (chain(1, 2, 3), 1, pin(2), ["c2"]),
        (chain(1, 2, 3), 1, pin(2, 2), ["c2"]),
        # what was pruned is passed over, also when it is what the run was told
        (chain(1, 2, 3, gone=(2,)), 1, None, ["c3"]),
        (chain(1, 2, 3, 4, gone=(3,)), 1, pin(3, 3), ["c2"]),
        # what was rewound is off the line
        (chain(1, 2, 3, off=(2, 3)), None, None, ["c1"]),
    ],
)
def test_upstream_forwards_limits_split(
    base: UpstreamChain, own: int | None, told: Pin | None, bases: list[str]
) -> None:
    choice = choose_start(AHEAD, base, at(own), None, told)
    assert offered(choice) == bases
    assert isinstance(choice, StartFrom)
    assert (choice.bounded, choice.last.id, choice.retrigger_before) == (True, bases[-1], choice.last.watermark)


@pytest.mark.parametrize(
    ("base", "own", "told", "says"),
    [
        (chain(), None, None, "waits for stage base, which has no checkpoint yet"),
        (chain(1, 2), 2, None, "which has no checkpoint beyond 2013-01-03T00:00Z yet"),
        (chain(1, 2, 3), 2, pin(2), "which has no checkpoint beyond"),
        (chain(1, 2, 3, off=(2, 3)), 2, None, "which has no checkpoint beyond"),
    ],
)
def test_forwards_there_is_nothing_yet(base: UpstreamChain, own: int | None, told: Pin | None, says: str) -> None:
    choice = choose_start(AHEAD, base, at(own), None, told)
    assert isinstance(choice, WaitForUpstream)
    assert says in choice.reason


def test_base_has_to_reach_end_of_next_partition() -> None:
    assert offered(choose_start(AHEAD, chain(1, 2, 3), day(0), day(2))) == ["c2", "c3"]


def test_few_are_offered_and_last_one_is_among_them() -> None:
    choice = choose_start(AHEAD, chain(*range(1, 101)), None, None)
    assert len(offered(choice)) == MOST
    assert offered(choice)[-2:] == [f"c{MOST - 1}", "c100"]


@pytest.mark.parametrize(
    ("base", "own", "told", "expected"),
    [
        (chain(), None, None, StartFromOwn),
        (chain(1, 2), None, None, StartFromOwn),
        (chain(1, 2), 3, None, WaitForUpstream),
        (chain(1, 2, 3), 3, pin(2), WaitForUpstream),
        (chain(1, 2, skipped=3), 4, None, WaitForUpstream),
        # what was skipped after the pinned one and the one before is later news
        (chain(1, 2, skipped=3), 3, pin(1), WaitForUpstream),
        (chain(1, 2, 3, gone=(2,)), 2, None, StartRefused),
        (chain(1, 2, 3, 4, gone=(2,)), 3, None, StartFrom),
        (chain(1, 2, 4, gone=(2,)), 3, None, StartRefused),
        (chain(1, 2, gone=(1,)), 1, None, StartRefused),
        # the base has skipped all there was: the stage goes on by itself
        (chain(skipped=2), 3, None, WaitForUpstream),
        (chain(skipped=2), 2, None, StartFromOwn),
        (chain(3), 2, None, StartFromOwn),
    ],
)
def test_upstream_back_is_found(
    base: UpstreamChain, own: int | None, told: Pin | None, expected: type[StartDecision]
) -> None:
    assert isinstance(choose_start(BACK, base, at(own), None, told), expected)


@pytest.mark.parametrize(
    ("base", "own", "told", "expected"),
    [
        (chain(1, 2, skipped=3), 3, None, "c2"),
        (chain(1, 2, skipped=3), 3, pin(2), "c2"),
        # and afterwards the same
        (chain(1, 2, 4), 3, None, "c2"),
        (chain(1, 2, 4, gone=(1,)), 3, None, "c2"),
    ],
)
def test_back_to_one_before_what_base_stepped_over(
    base: UpstreamChain, own: int, told: Pin | None, expected: str
) -> None:
    assert offered(choose_start(BACK, base, at(own), None, told)) == [expected]


@pytest.mark.parametrize(
    ("base", "own", "until"),
    [(chain(1, 2, 3), None, 3), (chain(1, skipped=3), 1, 3), (chain(skipped=3), 2, 3), (chain(), None, None)],
)
def test_back_goes_on_as_far_as_base_has_been(base: UpstreamChain, own: int | None, until: int | None) -> None:
    choice = choose_start(BACK, base, at(own), None)
    assert isinstance(choice, StartFrom | StartFromOwn)
    assert choice.retrigger_before == (None if until is None else day(until) + timedelta(seconds=1))


@pytest.mark.parametrize(("own", "again"), [(3, False), (2, True)])
def test_upstream_back_starts_at_own_watermark(own: int, again: bool) -> None:
    choice = choose_start(BACK, chain(1, 2, 3), day(own), None)
    assert offered(choice) == [f"c{own}"]
    assert isinstance(choice, StartFrom)
    assert choice.bounded is False
    assert choice.retrigger_before is not None
    assert (day(own + 1) < choice.retrigger_before) is again


@pytest.mark.parametrize(
    ("init", "base", "own", "told", "bases"),
    [
        (LATEST, chain(1, 2, 3), 9, None, ["c3"]),
        (LATEST, chain(1, 2, 3), None, pin(3), ["c3"]),
        (LATEST, chain(1, 2, 3, off=(3,)), None, None, ["c2"]),
        (PROMOTED, chain(1, 2, 3, promoted=2), None, None, ["c2"]),
        (PROMOTED, chain(1, 2, 3, promoted=2), None, pin(3), ["c2"]),
        (InitFrom(BASE, "promoted", alias="best"), chain(1, 2, promoted=1), None, None, ["c1"]),
        # once: the base may have gone on, and this is what was told
        (ONCE, chain(1, 2, 3), None, pin(2), ["c2"]),
        (InitFrom(BASE, once=True, checkpoint_id="c1"), chain(1, 2, 3), None, None, ["c1"]),
        (InitFrom(BASE, once=True, checkpoint_id="2"), chain(1, 2, 3), None, None, ["c2"]),
    ],
)
def test_upstream_newest_is_taken(
    init: InitFrom, base: UpstreamChain, own: int | None, told: Pin | None, bases: list[str]
) -> None:
    choice = choose_start(init, base, at(own), None, told)
    assert offered(choice) == bases
    assert isinstance(choice, StartFrom)
    assert (choice.bounded, choice.retrigger_before) == (False, None)


@pytest.mark.parametrize(
    ("init", "base", "told", "says"),
    [
        (LATEST, chain(), None, "has no checkpoint yet"),
        (PROMOTED, chain(1), None, "has promoted no checkpoint yet"),
        (InitFrom(BASE, "promoted", alias="other"), chain(1, promoted=1), None, "has promoted no checkpoint yet"),
        (LATEST, chain(1, 2, 3), pin(2), "checkpoint 3 of stage base is newer"),
    ],
)
def test_newest_is_not_there_or_another_runs(init: InitFrom, base: UpstreamChain, told: Pin | None, says: str) -> None:
    choice = choose_start(init, base, None, None, told)
    assert isinstance(choice, WaitForUpstream)
    assert says in choice.reason


@pytest.mark.parametrize("told", [None, pin(3)])
def test_upstream_promoted_older_leaves_nothing_to_wait_for(told: Pin | None) -> None:
    base = chain(1, 2, 3, promoted=2)
    choice = choose_start(PROMOTED, base, None, None, told)
    assert isinstance(choice, StartFrom)
    assert (offered(choice), choice.last.id) == (["c2"], "c3")
    # what the run hands on when it triggers itself is as good
    assert choose_start(PROMOTED, base, day(1), None, pin(3, choice.last.number)) == choice


def test_circle_of_latest_begins_with_nothing_once() -> None:
    init = InitFrom(BASE, "latest", feedback=True)
    assert choose_start(init, chain(), None, None) == StartFromOwn()
    assert isinstance(choose_start(init, chain(), day(1), None), WaitForUpstream)
    assert choose_start(init, chain(skipped=1), day(1), None) == StartFromOwn()


@pytest.mark.parametrize("told", [pin(3), pin(3, 3)])
@pytest.mark.parametrize("init", [AHEAD, LATEST, PROMOTED])
def test_upstream_pin_rewound_falls_back_before_it(init: InitFrom, told: Pin) -> None:
    assert offered(choose_start(init, chain(1, 2, 3, off=(3,), promoted=2), day(1), None, told)) == ["c2"]
    # of what was trained since, the run that it triggers takes care
    again = chain(1, 2, 3, 4, off=(3,), promoted=2)
    choice = choose_start(init, again, day(1), None, told)
    assert isinstance(choice, WaitForUpstream) if init.at != "same_watermark" else offered(choice) == ["c2"]


def test_upstream_once_waits_for_rewound_base() -> None:
    choice = choose_start(ONCE, chain(1, 2, 3, off=(3,)), None, None, pin(3))
    assert isinstance(choice, WaitForUpstream)
    assert choice.reason == "waits for stage base, which was rewound and has not caught up yet"


@pytest.mark.parametrize("init", [AHEAD, BACK, LATEST, PROMOTED, ONCE])
@pytest.mark.parametrize(
    ("told", "says"),
    [
        (pin(9), "never committed in this store, or its files were pruned"),
        (pin(9, 99), "never committed in this store"),
    ],
)
def test_pin_that_cannot_be_used_is_refused(init: InitFrom, told: Pin, says: str) -> None:
    choice = choose_start(init, chain(1, 2, 3, off=(3,)), day(1), None, told)
    assert isinstance(choice, StartRefused)
    assert says in choice.reason


def test_checkpoint_that_pipeline_names_has_to_be_there() -> None:
    choice = choose_start(InitFrom(BASE, once=True, checkpoint_id="c3"), chain(1, 2, 3, off=(3,)), None, None)
    assert isinstance(choice, StartRefused)
    assert "not on its line" in choice.reason


@pytest.mark.parametrize(
    ("init", "base", "own", "bases"),
    [
        # the branch of the base has nothing of its own: what it was forked from is there to start from
        (AHEAD, forked_at(2), 1, ["f"]),
        (AHEAD, forked_at(2, 3), 1, ["f", "c3"]),
        (AHEAD, forked_at(2, 3), 2, ["c3"]),
        (AHEAD, forked_at(2), None, ["f"]),
        (BACK, forked_at(2), 2, ["f"]),
        (BACK, forked_at(2, 3), 3, ["c3"]),
        (LATEST, forked_at(2), 2, ["f"]),
        (LATEST, forked_at(2, 3), 2, ["c3"]),
        (ONCE, forked_at(2), None, ["f"]),
    ],
)
def test_branch_of_base_begins_where_it_was_forked(
    init: InitFrom, base: UpstreamChain, own: int | None, bases: list[str]
) -> None:
    choice = choose_start(init, base, at(own), None)
    assert offered(choice) == bases
    assert isinstance(choice, StartFrom)
    assert [each.chain for each in choice.candidates] == [MAIN if name == "f" else None for name in bases]


@pytest.mark.parametrize(
    ("init", "base", "own"), [(AHEAD, forked_at(2), 2), (BACK, forked_at(2), 3), (PROMOTED, forked_at(2), 2)]
)
def test_branch_of_base_that_has_to_go_on_first(init: InitFrom, base: UpstreamChain, own: int) -> None:
    assert isinstance(choose_start(init, base, at(own), None), WaitForUpstream)


def test_run_may_be_told_to_start_where_base_was_forked() -> None:
    assert offered(choose_start(AHEAD, forked_at(2, 3), at(1), None, Pin(BASE, "f", 0))) == ["f"]


# -- a circle of three: who begins it looks through its base -----------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "third", "reaches"),
    [
        # (what was trained up to, what was skipped up to): none skipped
        ((2, 2), (2, 2), 2),
        ((2, 2), (1, 1), 1),
        # what the second stepped over the third cannot make up for, once it has trained all that there is
        ((1, 2), (1, 1), 2),
        ((2, 3), (1, 1), 1),
        ((1, 3), (1, 2), 3),
        ((0, 2), (0, 0), 2),
        ((0, 0), (0, 0), None),
    ],
)
def test_upstream_first_of_circle_waits_for_nothing_impossible(
    tmp_path: Path, second: tuple[int, int], third: tuple[int, int], reaches: int | None
) -> None:
    store = LocalStore(tmp_path / "store")
    chains = []
    for name, (trained, skipped) in (("second", second), ("third", third)):
        writer = ChainWriter(store, tmp_path / name, ChainKey("model", name))
        writer.commit_many(trained)
        if skipped > trained:
            head = writer.ledger.state().head
            skip(
                writer.ledger, day(trained), day(skipped),
                expected_head=head.id if head else None, by=Author(), now=day(9), reason="gate",
            )  # fmt: skip
        chains.append(writer.chain)
    base = read_upstream_chain(Ledger(store, chains[1]), None, through=chains[:1])
    assert base.edge == at(reaches)
