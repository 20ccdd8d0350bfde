"""May a task run, seen from its direct upstream tasks? Airflow's trigger rules, as one pure function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

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
    found = _kinds(upstream)
    entry = _RULES[rule]
    for kind, answer in entry.at_once.items():
        if found[kind]:
            return answer
    if not found["all done"]:
        return UNDECIDED
    for kind, answer in entry.when_done.items():
        if found[kind]:
            return answer
    return entry.otherwise


def _kinds(upstream: Mapping[str, State]) -> dict[str, bool]:
    """Whether there are upstream tasks of each kind that rules ask for."""
    counts = Counter(upstream.values())
    return {
        "success": counts[_T.SUCCESS] > 0,
        "skipped": counts[_T.SKIPPED] > 0,
        "bad": counts[_T.FAILED] + counts[_T.UPSTREAM_FAILED] > 0,
        "only skipped": counts[_T.SKIPPED] == len(upstream),
        "all done": sum(counts[state] for state in FINISHED) == len(upstream),
    }


class _Rule(NamedTuple):
    """What follows `at_once`, as soon as there is an upstream task of a kind; `when_done`, once all are done; and
    `otherwise`, then. Of what holds, the first counts."""

    at_once: Mapping[str, Ruling]
    otherwise: Ruling
    when_done: Mapping[str, Ruling] = MappingProxyType({})


_RULES = {
    TriggerRule.ALL_SUCCESS: _Rule({"bad": _T.UPSTREAM_FAILED, "skipped": _T.SKIPPED}, SATISFIED),
    TriggerRule.ALL_FAILED: _Rule({"success": _T.SKIPPED, "skipped": _T.SKIPPED}, SATISFIED),
    TriggerRule.ALL_DONE: _Rule({}, SATISFIED),
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: _Rule({"skipped": _T.SKIPPED}, _T.UPSTREAM_FAILED, {"success": SATISFIED}),
    TriggerRule.ONE_SUCCESS: _Rule({"success": SATISFIED}, _T.UPSTREAM_FAILED, {"only skipped": _T.SKIPPED}),
    TriggerRule.ONE_FAILED: _Rule({"bad": SATISFIED}, _T.SKIPPED),
    TriggerRule.ONE_DONE: _Rule({"success": SATISFIED, "bad": SATISFIED}, _T.SKIPPED),
    TriggerRule.NONE_FAILED: _Rule({"bad": _T.UPSTREAM_FAILED}, SATISFIED),
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: _Rule(
        {"bad": _T.UPSTREAM_FAILED}, SATISFIED, {"only skipped": _T.SKIPPED}
    ),
    TriggerRule.NONE_SKIPPED: _Rule({"skipped": _T.SKIPPED}, SATISFIED),
    TriggerRule.ALL_SKIPPED: _Rule({"success": _T.SKIPPED, "bad": _T.SKIPPED}, SATISFIED),
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
