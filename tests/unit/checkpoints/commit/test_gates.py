from __future__ import annotations

import pytest

from trainflow.checkpoints.commit.gates import (
    Gate,
    Pass,
    Past,
    RewindBy,
    SkipSplit,
    Stop,
    Verdict,
    gate_of,
    held,
    judge,
)
from trainflow.errors import InputError

GOOD, BAD = {"auc": 0.7, "loss": 0.2}, {"auc": 0.5, "loss": 9.0}
AUC, LOSS = "auc >= 0.6: it is 0.5", "loss < 1: it is 9"
FIVE = Past(places=(1, 2, 3, 4, 5))


def gates(*actions: str) -> list[Gate]:
    return [Gate(condition, action) for condition, action in zip(("auc >= 0.6", "loss < 1"), actions, strict=False)]


@pytest.mark.parametrize(
    ("actions", "past", "verdict"),
    [
        (["stop"], FIVE, Stop((AUC,))),
        (["skip"], FIVE, SkipSplit((AUC,))),
        (["rewind 2"], FIVE, RewindBy(3, (AUC,))),
        # the most severe wins, whatever the order; everything that failed is told
        (["stop", "skip"], FIVE, Stop((AUC, LOSS))),
        (["skip", "stop"], FIVE, Stop((AUC, LOSS))),
        (["rewind 1", "stop"], FIVE, Stop((AUC, LOSS))),
        (["skip", "rewind 1"], FIVE, RewindBy(4, (AUC, LOSS))),
        (["rewind 1", "rewind 4"], FIVE, RewindBy(1, (AUC, LOSS))),
        # how far back: to before the first, and no further
        (["rewind 5"], FIVE, RewindBy(0, (AUC,))),
        (["rewind 9"], FIVE, RewindBy(0, (AUC,))),
        (["rewind 1"], Past(places=(1,)), RewindBy(0, (AUC,))),
        # what cannot be rewound to is a stop
        (["rewind 1"], Past(), Stop((AUC, "there is no checkpoint to rewind 1 from"))),
        (
            ["rewind 1"],
            Past(places=(3, 5)),
            Stop((AUC, "the files of the checkpoint 1 back were pruned, so it cannot be rewound to")),
        ),
        (["rewind 2"], Past(places=(3, 5)), RewindBy(3, (AUC,))),
        (["rewind 5"], Past(places=(5,)), RewindBy(0, (AUC,))),
        # once is enough
        (["rewind 2"], Past(places=(1, 2, 3), rewound=True), Stop((AUC, "a rewind was tried at this split already"))),
        (["skip"], Past(places=(1, 2, 3), rewound=True), SkipSplit((AUC,))),
    ],
)
def test_gate_refusal_leads_to_its_action(actions: list[str], past: Past, verdict: Verdict) -> None:
    assert judge(gates(*actions), BAD, {}, past) == verdict


@pytest.mark.parametrize("action", ["stop", "skip", "rewind 3"])
def test_good_metrics_pass_whatever_consequence_would_be(action: str) -> None:
    assert judge(gates(action, action), GOOD, {}, FIVE) == Pass()
    assert judge([], {}, {}, FIVE) == Pass()


def test_gate_refusing_alone_decides_consequence() -> None:
    both = [Gate("auc >= 0.6", "stop"), Gate("loss < 1", "skip")]

    assert judge(both, {"auc": 0.9, "loss": 9.0}, {}, FIVE) == SkipSplit((LOSS,))


def test_previous_is_parent() -> None:
    gate = Gate("auc >= 0.98 * previous", "skip")

    assert judge([gate], {"auc": 0.7}, {"auc": 0.7}, FIVE) == Pass()
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
        (2, 3, (1, 2, 3), Stop((AUC, TAKES_BACK))),
        (1, 3, (1, 2, 4), Stop((AUC, TAKES_BACK))),
    ],
)
def test_gate_rewind_keeps_manual_decisions(place: int, floor: int, places: tuple[int, ...], expected: Verdict) -> None:
    assert held(RewindBy(place, (AUC,)), floor, places) == expected
