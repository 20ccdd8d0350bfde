"""May a task run, seen from its direct upstream tasks? Airflow's trigger rules, as one pure function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from trainflow.states import FINISHED, TaskInstanceState, TriggerRule

_T = TaskInstanceState
State = TaskInstanceState | None


class Undecided:
    """Answer that is not decided yet: upstream tasks are under way."""


class Satisfied:
    """The rule is satisfied."""


UNDECIDED = Undecided()
SATISFIED = Satisfied()

#: wait, run, or end in this state without having run
Ruling = Undecided | Satisfied | TaskInstanceState


def ruling(rule: TriggerRule, upstream: Mapping[str, State], setups: frozenset[str] = frozenset()) -> Ruling:
    """What `rule` says, given the states of the direct upstream tasks (task id → state).

    `setups`: those of them that are setup tasks; only ALL_DONE_SETUP_SUCCESS looks at it.
    A removed task counts as done and as neither success nor failure.
    """
    if rule is TriggerRule.ALWAYS or not upstream:
        return SATISFIED
    if rule is TriggerRule.ALL_DONE_SETUP_SUCCESS:
        return _all_done_setup_success(upstream, setups)
    return _RULES[rule](_Tally(upstream))


class _Tally:
    """Upstream states, counted."""

    def __init__(self, upstream: Mapping[str, State]) -> None:
        counts = Counter(upstream.values())
        self.total = len(upstream)
        self.success = counts[_T.SUCCESS]
        self.skipped = counts[_T.SKIPPED]
        self.failed = counts[_T.FAILED]
        self.upstream_failed = counts[_T.UPSTREAM_FAILED]
        self.done = sum(counts[state] for state in FINISHED)

    @property
    def bad(self) -> int:
        return self.failed + self.upstream_failed

    @property
    def all_done(self) -> bool:
        return self.done == self.total


def _all_success(t: _Tally) -> Ruling:
    if t.bad:
        return _T.UPSTREAM_FAILED
    if t.skipped:
        return _T.SKIPPED
    return SATISFIED if t.all_done else UNDECIDED


def _all_failed(t: _Tally) -> Ruling:
    if t.success or t.skipped:
        return _T.SKIPPED
    return SATISFIED if t.all_done else UNDECIDED


def _all_done(t: _Tally) -> Ruling:
    return SATISFIED if t.all_done else UNDECIDED


def _all_done_min_one_success(t: _Tally) -> Ruling:
    if t.skipped:
        return _T.SKIPPED
    if not t.all_done:
        return UNDECIDED
    return SATISFIED if t.success else _T.UPSTREAM_FAILED


def _one_success(t: _Tally) -> Ruling:
    if t.success:
        return SATISFIED
    if not t.all_done:
        return UNDECIDED
    return _T.SKIPPED if t.skipped == t.total else _T.UPSTREAM_FAILED


def _one_failed(t: _Tally) -> Ruling:
    if t.bad:
        return SATISFIED
    return _T.SKIPPED if t.all_done else UNDECIDED


def _one_done(t: _Tally) -> Ruling:
    if t.success or t.bad:
        return SATISFIED
    return _T.SKIPPED if t.all_done else UNDECIDED


def _none_failed(t: _Tally) -> Ruling:
    if t.bad:
        return _T.UPSTREAM_FAILED
    return SATISFIED if t.all_done else UNDECIDED


def _none_failed_min_one_success(t: _Tally) -> Ruling:
    if t.bad:
        return _T.UPSTREAM_FAILED
    if not t.all_done:
        return UNDECIDED
    return _T.SKIPPED if t.skipped == t.total else SATISFIED


def _none_skipped(t: _Tally) -> Ruling:
    if t.skipped:
        return _T.SKIPPED
    return SATISFIED if t.all_done else UNDECIDED


def _all_skipped(t: _Tally) -> Ruling:
    if t.success or t.bad:
        return _T.SKIPPED
    return SATISFIED if t.all_done else UNDECIDED


_RULES = {
    TriggerRule.ALL_SUCCESS: _all_success,
    TriggerRule.ALL_FAILED: _all_failed,
    TriggerRule.ALL_DONE: _all_done,
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: _all_done_min_one_success,
    TriggerRule.ONE_SUCCESS: _one_success,
    TriggerRule.ONE_FAILED: _one_failed,
    TriggerRule.ONE_DONE: _one_done,
    TriggerRule.NONE_FAILED: _none_failed,
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: _none_failed_min_one_success,
    TriggerRule.NONE_SKIPPED: _none_skipped,
    TriggerRule.ALL_SKIPPED: _all_skipped,
}


def _all_done_setup_success(upstream: Mapping[str, State], setups: frozenset[str]) -> Ruling:
    """What a teardown waits for: everything upstream is done; it runs if any setup it belongs to succeeded, since what
    that one made has to be taken away again."""
    if any(state not in FINISHED for state in upstream.values()):
        return UNDECIDED
    states = [upstream[task_id] for task_id in upstream if task_id in setups]
    if not states or _T.SUCCESS in states:
        return SATISFIED
    return _T.SKIPPED if all(state is _T.SKIPPED for state in states) else _T.UPSTREAM_FAILED
