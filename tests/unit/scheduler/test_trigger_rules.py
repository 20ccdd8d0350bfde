"""Every trigger rule against every upstream combination that decides, as one table (Airflow's)."""

from __future__ import annotations

import itertools

import pytest

from trainflow.scheduler.trigger_rules import RUNS, WAITS, Ruling, ruling
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
        "s": RUNS,
        "ss": RUNS,
        "sx": RUNS,
        "f": UPSTREAM_FAILED,
        "u": UPSTREAM_FAILED,
        "sf": UPSTREAM_FAILED,
        "k": SKIPPED,
        "sk": SKIPPED,
        "kf": UPSTREAM_FAILED,
        "-": WAITS,
        "sr": WAITS,
        "st": WAITS,
        # decided as soon as it cannot be met any more
        "rf": UPSTREAM_FAILED,
        "rk": SKIPPED,
    },
    R.ALL_FAILED: {
        "f": RUNS,
        "fu": RUNS,
        "s": SKIPPED,
        "fs": SKIPPED,
        "fk": SKIPPED,
        "fr": WAITS,
        "rs": SKIPPED,
        "-": WAITS,
    },
    R.ALL_DONE: {"s": RUNS, "sfkux": RUNS, "sr": WAITS, "fd": WAITS, "kq": WAITS, "ut": WAITS, "-": WAITS},
    R.ALL_DONE_MIN_ONE_SUCCESS: {
        "s": RUNS,
        "sf": RUNS,
        "su": RUNS,
        "sk": SKIPPED,
        "k": SKIPPED,
        "f": UPSTREAM_FAILED,
        "fu": UPSTREAM_FAILED,
        "sr": WAITS,
        "fr": WAITS,
    },
    R.ONE_SUCCESS: {
        "s": RUNS,
        "sr": RUNS,
        "s-": RUNS,
        "sf": RUNS,
        "r": WAITS,
        "fr": WAITS,
        "k": SKIPPED,
        "kk": SKIPPED,
        "f": UPSTREAM_FAILED,
        "fk": UPSTREAM_FAILED,
        "uk": UPSTREAM_FAILED,
    },
    R.ONE_FAILED: {
        "f": RUNS,
        "u": RUNS,
        "fr": RUNS,
        "fs": RUNS,
        "s": SKIPPED,
        "sk": SKIPPED,
        "k": SKIPPED,
        "sr": WAITS,
        "-": WAITS,
    },
    R.ONE_DONE: {
        "s": RUNS,
        "f": RUNS,
        "u": RUNS,
        "sr": RUNS,
        "f-": RUNS,
        "k": SKIPPED,
        "kk": SKIPPED,
        "kr": WAITS,
        "ks": RUNS,
        "-": WAITS,
    },
    R.NONE_FAILED: {
        "s": RUNS,
        "k": RUNS,
        "sk": RUNS,
        "kk": RUNS,
        "f": UPSTREAM_FAILED,
        "su": UPSTREAM_FAILED,
        "rf": UPSTREAM_FAILED,
        "sr": WAITS,
        "kr": WAITS,
    },
    R.NONE_FAILED_MIN_ONE_SUCCESS: {
        "s": RUNS,
        "sk": RUNS,
        "k": SKIPPED,
        "kk": SKIPPED,
        "f": UPSTREAM_FAILED,
        "sf": UPSTREAM_FAILED,
        "ku": UPSTREAM_FAILED,
        "sr": WAITS,
        "kr": WAITS,
    },
    R.NONE_SKIPPED: {
        "s": RUNS,
        "f": RUNS,
        "sfu": RUNS,
        "k": SKIPPED,
        "sk": SKIPPED,
        "kr": SKIPPED,
        "sr": WAITS,
        "fr": WAITS,
    },
    R.ALL_SKIPPED: {
        "k": RUNS,
        "kk": RUNS,
        "s": SKIPPED,
        "kf": SKIPPED,
        "ku": SKIPPED,
        "rs": SKIPPED,
        "kr": WAITS,
        "-": WAITS,
    },
    R.ALWAYS: {"-": RUNS, "r": RUNS, "f": RUNS, "sfku": RUNS},
    # without a setup among the upstream tasks it is all_done; with one see below
    R.ALL_DONE_SETUP_SUCCESS: {"s": RUNS, "fku": RUNS, "sr": WAITS, "-": WAITS},
}
ROWS = [(rule, letters, expected) for rule, rows in TABLE.items() for letters, expected in rows.items()]


def _upstream(letters: str) -> dict[str, TaskInstanceState | None]:
    return {f"t{number}": LETTERS[letter] for number, letter in enumerate(letters)}


def test_the_table_has_every_rule() -> None:
    assert set(TABLE) == set(TriggerRule)


@pytest.mark.parametrize(("rule", "letters", "expected"), ROWS, ids=[f"{rule}:{row}" for rule, row, _ in ROWS])
def test_rule(rule: TriggerRule, letters: str, expected: Ruling) -> None:
    assert ruling(rule, _upstream(letters)) is expected


@pytest.mark.parametrize(
    ("setups", "works", "expected"),
    [
        ("s", "s", RUNS),
        ("s", "f", RUNS),
        ("s", "k", RUNS),
        ("s", "r", WAITS),
        ("r", "s", WAITS),
        ("f", "u", UPSTREAM_FAILED),
        ("u", "u", UPSTREAM_FAILED),
        ("k", "k", SKIPPED),
        ("kk", "s", SKIPPED),
        # one setup made something: it has to be taken away
        ("sf", "u", RUNS),
        ("sk", "s", RUNS),
        ("fk", "u", UPSTREAM_FAILED),
    ],
)
def test_teardown_waits_for_all_and_needs_a_setup(setups: str, works: str, expected: Ruling) -> None:
    upstream = {f"setup{number}": LETTERS[letter] for number, letter in enumerate(setups)}
    names = frozenset(upstream)
    upstream.update(_upstream(works))
    assert ruling(R.ALL_DONE_SETUP_SUCCESS, upstream, names) is expected


@pytest.mark.parametrize("rule", TriggerRule)
def test_without_upstream_every_rule_runs(rule: TriggerRule) -> None:
    assert ruling(rule, {}) is RUNS


@pytest.mark.parametrize("rule", TriggerRule)
def test_never_waits_once_all_are_done(rule: TriggerRule) -> None:
    """Otherwise a run could never end."""
    for states in itertools.product(sorted(FINISHED), repeat=3):
        upstream = {str(number): state for number, state in enumerate(states)}
        assert ruling(rule, upstream, frozenset({"0"})) is not WAITS


@pytest.mark.parametrize("rule", TriggerRule)
def test_what_was_decided_early_is_decided_alike_later(rule: TriggerRule) -> None:
    """A verdict that another upstream task's end would turn round would have been a race. (Running early is final.)"""
    unfinished: list[TaskInstanceState | None] = [None, RUNNING]
    for first, second in itertools.product([*sorted(FINISHED), *unfinished], unfinished):
        early = ruling(rule, {"a": first, "b": second})
        if not isinstance(early, TaskInstanceState) or early is UPSTREAM_FAILED:
            continue
        later = {ruling(rule, {"a": first, "b": end}) for end in FINISHED}
        # skipped may turn into upstream_failed: both have not run
        assert RUNS not in later
