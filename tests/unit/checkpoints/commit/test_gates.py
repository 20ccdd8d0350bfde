from __future__ import annotations

import pytest

from trainflow.checkpoints.commit.gates import (
    CommitCheckpoint,
    Gate,
    GateHistory,
    RewindBy,
    SkipSplit,
    StopChain,
    Verdict,
    gate_of,
    judge,
    limit_rewind,
)
from trainflow.errors import InputError

GOOD, BAD = {"auc": 0.7, "loss": 0.2}, {"auc": 0.5, "loss": 9.0}
AUC, LOSS = "auc >= 0.6: it is 0.5", "loss < 1: it is 9"
FIVE = GateHistory(places=(1, 2, 3, 4, 5))


def gates(*actions: str) -> list[Gate]:
    return [Gate(condition, action) for condition, action in zip(("auc >= 0.6", "loss < 1"), actions, strict=False)]


@pytest.mark.parametrize(
    ("actions", "past", "verdict"),
    [
        (["stop"], FIVE, StopChain((AUC,))),
        (["skip"], FIVE, SkipSplit((AUC,))),
        (["rewind 2"], FIVE, RewindBy(3, (AUC,))),
        # the most severe wins, whatever the order; everything that failed is told
        (["stop", "skip"], FIVE, StopChain((AUC, LOSS))),
        (["skip", "stop"], FIVE, StopChain((AUC, LOSS))),
        (["rewind 1", "stop"], FIVE, StopChain((AUC, LOSS))),
        (["skip", "rewind 1"], FIVE, RewindBy(4, (AUC, LOSS))),
        (["rewind 1", "rewind 4"], FIVE, RewindBy(1, (AUC, LOSS))),
        # how far back: to before the first, and no further
        (["rewind 5"], FIVE, RewindBy(0, (AUC,))),
        (["rewind 9"], FIVE, RewindBy(0, (AUC,))),
        (["rewind 1"], GateHistory(places=(1,)), RewindBy(0, (AUC,))),
        # what cannot be rewound to is a stop
        (["rewind 1"], GateHistory(), StopChain((AUC, "there is no checkpoint to rewind 1 from"))),
        (
            ["rewind 1"],
            GateHistory(places=(3, 5)),
            StopChain((AUC, "the files of the checkpoint 1 back were pruned, so it cannot be rewound to")),
        ),
        (["rewind 2"], GateHistory(places=(3, 5)), RewindBy(3, (AUC,))),
        (["rewind 5"], GateHistory(places=(5,)), RewindBy(0, (AUC,))),
        # once is enough
        (
            ["rewind 2"],
            GateHistory(places=(1, 2, 3), rewound=True),
            StopChain((AUC, "a rewind was tried at this split already")),
        ),
        (["skip"], GateHistory(places=(1, 2, 3), rewound=True), SkipSplit((AUC,))),
    ],
)
def test_gate_refusal_leads_to_its_action(actions: list[str], past: GateHistory, verdict: Verdict) -> None:
    assert judge(gates(*actions), BAD, {}, past) == verdict


@pytest.mark.parametrize("action", ["stop", "skip", "rewind 3"])
def test_good_metrics_pass_whatever_consequence_would_be(action: str) -> None:
    assert judge(gates(action, action), GOOD, {}, FIVE) == CommitCheckpoint()
    assert judge([], {}, {}, FIVE) == CommitCheckpoint()


def test_gate_refusing_alone_decides_consequence() -> None:
    both = [Gate("auc >= 0.6", "stop"), Gate("loss < 1", "skip")]

    assert judge(both, {"auc": 0.9, "loss": 9.0}, {}, FIVE) == SkipSplit((LOSS,))


def test_previous_is_parent() -> None:
    gate = Gate("auc >= 0.98 * previous", "skip")

    assert judge([gate], {"auc": 0.7}, {"auc": 0.7}, FIVE) == CommitCheckpoint()
    assert isinstance(judge([gate], {"auc": 0.6}, {"auc": 0.7}, FIVE), SkipSplit)


def test_condition_alone_stops() -> None:
    assert gate_of("auc >= 0.6") == Gate("auc >= 0.6", "stop")
    assert gate_of(Gate("auc >= 0.6", "skip")).otherwise == "skip"


@pytest.mark.parametrize("action", ["", "halt", "rewind", "rewind 0", "rewind -1", "rewind two", "skip 1", "Stop"])
def test_action_that_is_none_says_which_there_are(action: str) -> None:
    with pytest.raises(InputError, match=r"write stop, skip, or rewind N"):
        Gate("auc >= 0.6", action)


def test_gate_is_read_when_it_is_made() -> None:
    with pytest.raises(InputError, match=r"condition 'auc => 1': expected one of .* at column 5"):
        Gate("auc => 1")


NO_FURTHER = "a person decided about the checkpoint at place 3 of the line: it goes back no further"
TAKES_BACK = "it cannot be rewound: that would take back what a person has decided"


@pytest.mark.parametrize(
    ("place", "floor", "places", "expected"),
    [
        (2, 0, (1, 2, 3, 4), RewindBy(2, (AUC,))),
        (3, 3, (1, 2, 3, 4), RewindBy(3, (AUC,))),
        (2, 3, (1, 2, 3, 4), RewindBy(3, (AUC, NO_FURTHER))),
        (0, 3, (3, 4), RewindBy(3, (AUC, NO_FURTHER))),
        # about the head itself, or its files are gone
        (2, 3, (1, 2, 3), StopChain((AUC, TAKES_BACK))),
        (1, 3, (1, 2, 4), StopChain((AUC, TAKES_BACK))),
    ],
)
def test_gate_rewind_keeps_manual_decisions(place: int, floor: int, places: tuple[int, ...], expected: Verdict) -> None:
    assert limit_rewind(RewindBy(place, (AUC,)), floor, places) == expected
