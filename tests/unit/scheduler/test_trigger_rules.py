"""Every trigger rule against every upstream combination that decides, as one table (Airflow's)."""

from __future__ import annotations

import itertools

import pytest

from trainflow.scheduler.trigger_rules import SATISFIED, UNDECIDED, Ruling, ruling
from trainflow.states import FINISHED, TaskInstanceState, TriggerRule

T = TaskInstanceState
R = TriggerRule
SUCCESS, FAILED, SKIPPED, UPSTREAM_FAILED, REMOVED, RUNNING = (
    T.SUCCESS,
    T.FAILED,
    T.SKIPPED,
    T.UPSTREAM_FAILED,
    T.REMOVED,
    T.RUNNING,
)
LETTERS = {
    "s": SUCCESS,
    "f": FAILED,
    "k": SKIPPED,
    "u": UPSTREAM_FAILED,
    "x": REMOVED,
    "r": RUNNING,
    "q": T.QUEUED,
    "d": T.DEFERRED,
    "t": T.UP_FOR_RETRY,
    "-": None,
}

#: upstream states by letter → what the rule says
TABLE: dict[TriggerRule, dict[str, Ruling]] = {
    R.ALL_SUCCESS: {
        "s": SATISFIED,
        "ss": SATISFIED,
        "sx": SATISFIED,
        "f": UPSTREAM_FAILED,
        "u": UPSTREAM_FAILED,
        "sf": UPSTREAM_FAILED,
        "k": SKIPPED,
        "sk": SKIPPED,
        "kf": UPSTREAM_FAILED,
        "-": UNDECIDED,
        "sr": UNDECIDED,
        "st": UNDECIDED,
        # decided as soon as it cannot be met any more
        "rf": UPSTREAM_FAILED,
        "rk": SKIPPED,
    },
    R.ALL_FAILED: {
        "f": SATISFIED,
        "fu": SATISFIED,
        "s": SKIPPED,
        "fs": SKIPPED,
        "fk": SKIPPED,
        "fr": UNDECIDED,
        "rs": SKIPPED,
        "-": UNDECIDED,
    },
    R.ALL_DONE: {
        "s": SATISFIED,
        "sfkux": SATISFIED,
        "sr": UNDECIDED,
        "fd": UNDECIDED,
        "kq": UNDECIDED,
        "ut": UNDECIDED,
        "-": UNDECIDED,
    },
    R.ALL_DONE_MIN_ONE_SUCCESS: {
        "s": SATISFIED,
        "sf": SATISFIED,
        "su": SATISFIED,
        "sk": SKIPPED,
        "k": SKIPPED,
        "f": UPSTREAM_FAILED,
        "fu": UPSTREAM_FAILED,
        "sr": UNDECIDED,
        "fr": UNDECIDED,
    },
    R.ONE_SUCCESS: {
        "s": SATISFIED,
        "sr": SATISFIED,
        "s-": SATISFIED,
        "sf": SATISFIED,
        "r": UNDECIDED,
        "fr": UNDECIDED,
        "k": SKIPPED,
        "kk": SKIPPED,
        "f": UPSTREAM_FAILED,
        "fk": UPSTREAM_FAILED,
        "uk": UPSTREAM_FAILED,
    },
    R.ONE_FAILED: {
        "f": SATISFIED,
        "u": SATISFIED,
        "fr": SATISFIED,
        "fs": SATISFIED,
        "s": SKIPPED,
        "sk": SKIPPED,
        "k": SKIPPED,
        "sr": UNDECIDED,
        "-": UNDECIDED,
    },
    R.ONE_DONE: {
        "s": SATISFIED,
        "f": SATISFIED,
        "u": SATISFIED,
        "sr": SATISFIED,
        "f-": SATISFIED,
        "k": SKIPPED,
        "kk": SKIPPED,
        "kr": UNDECIDED,
        "ks": SATISFIED,
        "-": UNDECIDED,
    },
    R.NONE_FAILED: {
        "s": SATISFIED,
        "k": SATISFIED,
        "sk": SATISFIED,
        "kk": SATISFIED,
        "f": UPSTREAM_FAILED,
        "su": UPSTREAM_FAILED,
        "rf": UPSTREAM_FAILED,
        "sr": UNDECIDED,
        "kr": UNDECIDED,
    },
    R.NONE_FAILED_MIN_ONE_SUCCESS: {
        "s": SATISFIED,
        "sk": SATISFIED,
        "k": SKIPPED,
        "kk": SKIPPED,
        "f": UPSTREAM_FAILED,
        "sf": UPSTREAM_FAILED,
        "ku": UPSTREAM_FAILED,
        "sr": UNDECIDED,
        "kr": UNDECIDED,
    },
    R.NONE_SKIPPED: {
        "s": SATISFIED,
        "f": SATISFIED,
        "sfu": SATISFIED,
        "k": SKIPPED,
        "sk": SKIPPED,
        "kr": SKIPPED,
        "sr": UNDECIDED,
        "fr": UNDECIDED,
    },
    R.ALL_SKIPPED: {
        "k": SATISFIED,
        "kk": SATISFIED,
        "s": SKIPPED,
        "kf": SKIPPED,
        "ku": SKIPPED,
        "rs": SKIPPED,
        "kr": UNDECIDED,
        "-": UNDECIDED,
    },
    R.ALWAYS: {"-": SATISFIED, "r": SATISFIED, "f": SATISFIED, "sfku": SATISFIED},
    # without a setup among the upstream tasks it is all_done; with one see below
    R.ALL_DONE_SETUP_SUCCESS: {"s": SATISFIED, "fku": SATISFIED, "sr": UNDECIDED, "-": UNDECIDED},
}
ROWS = [(rule, letters, expected) for rule, rows in TABLE.items() for letters, expected in rows.items()]


def _upstream(letters: str) -> dict[str, TaskInstanceState | None]:
    return {f"t{number}": LETTERS[letter] for number, letter in enumerate(letters)}


def test_table_has_every_rule() -> None:
    assert set(TABLE) == set(TriggerRule)


@pytest.mark.parametrize(("rule", "letters", "expected"), ROWS, ids=[f"{rule}:{row}" for rule, row, _ in ROWS])
def test_trigger_rule_decides_as_table(rule: TriggerRule, letters: str, expected: Ruling) -> None:
    assert ruling(rule, _upstream(letters)) is expected


@pytest.mark.parametrize(
    ("setups", "works", "expected"),
    [
        ("s", "s", SATISFIED),
        ("s", "f", SATISFIED),
        ("s", "k", SATISFIED),
        ("s", "r", UNDECIDED),
        ("r", "s", UNDECIDED),
        ("f", "u", UPSTREAM_FAILED),
        ("u", "u", UPSTREAM_FAILED),
        ("k", "k", SKIPPED),
        ("kk", "s", SKIPPED),
        # one setup made something: it has to be taken away
        ("sf", "u", SATISFIED),
        ("sk", "s", SATISFIED),
        ("fk", "u", UPSTREAM_FAILED),
    ],
)
def test_teardown_waits_for_all_and_needs_setup(setups: str, works: str, expected: Ruling) -> None:
    upstream = {f"setup{number}": LETTERS[letter] for number, letter in enumerate(setups)}
    names = frozenset(upstream)
    upstream.update(_upstream(works))
    assert ruling(R.ALL_DONE_SETUP_SUCCESS, upstream, names) is expected


@pytest.mark.parametrize("rule", TriggerRule)
def test_trigger_rule_without_upstream_runs(rule: TriggerRule) -> None:
    assert ruling(rule, {}) is SATISFIED


@pytest.mark.parametrize("rule", TriggerRule)
def test_trigger_rule_with_all_done_never_waits(rule: TriggerRule) -> None:
    """Otherwise a run could never end."""
    for states in itertools.product(sorted(FINISHED), repeat=3):
        upstream = {str(number): state for number, state in enumerate(states)}
        assert ruling(rule, upstream, frozenset({"0"})) is not UNDECIDED


@pytest.mark.parametrize("rule", TriggerRule)
def test_trigger_rule_decided_early_stays_decided(rule: TriggerRule) -> None:
    """A verdict that another upstream task's end would turn round would have been a race. (Running early is final.)"""
    unfinished: list[TaskInstanceState | None] = [None, RUNNING]
    for first, second in itertools.product([*sorted(FINISHED), *unfinished], unfinished):
        early = ruling(rule, {"a": first, "b": second})
        if not isinstance(early, TaskInstanceState) or early is UPSTREAM_FAILED:
            continue
        later = {ruling(rule, {"a": first, "b": end}) for end in FINISHED}
        # skipped may turn into upstream_failed: both have not run
        assert SATISFIED not in later
