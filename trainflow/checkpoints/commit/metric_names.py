"""Metrics that a pipeline names: in gates, promotions and the retention. Pure.

One rule for all of them: a name that neither the run nor any checkpoint of the chain has is misspelt, or its function
does not report it. Nothing is committed then, and nothing is lost: the chain stops over what was trained, and once the
name is mended a person accepts it without training again. Before the first evaluation it is not known which metrics
that will give, so nothing is said until then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from trainflow.checkpoints.actions.promote import Promote
from trainflow.checkpoints.commit.conditions import parse_condition
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.upkeep.retention import KeepBest, Policy


class NamedMetric(msgspec.Struct, frozen=True):
    """A metric, the key that names it (`gates[0]`) and where that is written (`pipelines/clicks.yaml:12`)."""

    key: str
    metric: str
    place: str = ""


def named_metrics(
    gates: Iterable[Gate], promotes: Iterable[Promote], retention: Iterable[Policy]
) -> tuple[NamedMetric, ...]:
    """Every metric that is named, in the order of the keys."""
    found = [NamedMetric(f"gates[{number}]", gate.metric) for number, gate in enumerate(gates)]
    for number, each in enumerate(promotes):
        names = (parse_condition(condition).metric for condition in each.when)
        found += [NamedMetric(f"promote[{number}].when[{at}]", name) for at, name in enumerate(names)]
    found += [NamedMetric(KEEP_BEST, policy.metric) for policy in retention if isinstance(policy, KeepBest)]
    return tuple(found)


KEEP_BEST = "retention.keep_best.metric"


def known_metrics(state: ChainState) -> set[str]:
    """Names of what the newest checkpoints of a chain have reported, and of what they were scored with."""
    known = {name for each in state.recent for name in (*each.metrics, *each.scores)}
    if state.head is not None:
        known.update(state.head.metrics, state.head.evaluation, state.head.not_finite)
    return known


def misnamed(named: Sequence[NamedMetric], known: Collection[str]) -> list[NamedMetric]:
    """Names that no metric has."""
    return [each for each in named if each.metric not in known]


def sentence_about(each: NamedMetric, known: Collection[str]) -> str:
    """What is wrong with a name, and which there are."""
    import difflib

    place = f" ({each.place})" if each.place else ""
    close = difflib.get_close_matches(each.metric, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    there = ", ".join(sorted(known)) or "none"
    return (
        f"{each.key}{place}: there is no metric {each.metric!r}, in this run or in the chain (there are: {there}){hint}"
    )
