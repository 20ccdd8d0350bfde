"""One attempt in the hands of the executor: what is known of its pods, one a rank, and what that means for it.

Pods and not an Indexed Job: a Job counts a pod that was deleted before it ran as a failure, or replaces one in the
middle of training, and cannot be made again under the name of its attempt before the old one is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.executors.kubernetes.pod import PodPlace
from trainflow.executors.kubernetes.pod_outcome import (
    HOPELESS,
    AttemptFacts,
    PodSummary,
    PodVerdict,
    Step,
    cause_of,
    exit_of,
    judge,
)
from trainflow.messages.workload import ExecuteTask, ProcessExit

#: seconds that the first rank has to say itself that another one is gone, which the cluster may show before
SAYS_ITSELF_SECONDS = 15.0


class RankPod:
    """The pod of one rank, or of the whole attempt. `asked`: when it was asked for."""

    def __init__(self, asked: float, *, pending: bool) -> None:
        """`pending`: it was asked for, and it is not known yet whether it is there."""
        self.asked = asked
        self.pending = pending
        self.pod: PodSummary | None = None
        #: where it was made
        self.place: PodPlace | None = None
        self.seen = False
        self.hopeless_since: float | None = None
        #: since when it is gone or has failed
        self.bad_since: float | None = None

    def look(self, now: float) -> None:
        """Take note of since when it is as it is."""
        waits = self.pod is not None and self.pod.waits_for in HOPELESS
        self.hopeless_since = _beginning(self.hopeless_since, now, waits)
        gone = self.pod is None and self.seen
        failed = self.pod is not None and self.pod.ended and not _ended_well(self.pod)
        self.bad_since = _beginning(self.bad_since, now, gone or failed)


class PodAttempt:
    """An attempt that has pods, or is about to have. `workload`: None for one that another engine delivered."""

    def __init__(self, workload: ExecuteTask | None, now: float) -> None:
        self.workload = workload
        self.asked = now
        nodes = range(workload.nodes) if workload is not None else ()
        self.ranks = {rank: RankPod(now, pending=True) for rank in nodes}
        #: namespaces in which it has none
        self.not_in: set[str] = set()
        self.begun = False
        self.looked = now
        self.note: str | None = None
        #: since when some of its ranks have a place, and others wait for one
        self.half_placed_since: float | None = None
        #: its places were given back: when they are asked for again
        self.asks_again_at: float | None = None
        #: ranks of whose end the cause was told
        self.explained: set[int] = set()

    @property
    def places(self) -> list[PodPlace]:
        """Where its pods were made."""
        return [each.place for each in self.ranks.values() if each.place is not None]

    @property
    def is_quiet(self) -> bool:
        """Whether it needs no look before something happens to its pods."""
        there = all(each.pod is not None and each.bad_since is None for each in self.ranks.values())
        return self.begun and there and bool(self.ranks)

    @property
    def may_have_begun(self) -> bool:
        """Whether it is worth a question: one whose pods wait to run has not."""
        pods = [each.pod for each in self.ranks.values()]
        ended = any(pod is None or pod.ended for pod in pods)
        return ended or all(pod is not None and pod.phase != "Pending" for pod in pods)

    def pods_before(self, moment: float) -> list[PodSummary]:
        """Give its pods that were asked for before."""
        return [each.pod for each in self.ranks.values() if each.pod is not None and each.asked < moment]

    def show(self, pod: PodSummary, now: float) -> None:
        """Take note of what the cluster shows of a pod."""
        for rank in range(pod.nodes):
            self.ranks.setdefault(rank, RankPod(now, pending=False))
        shown = self.ranks[pod.rank]
        shown.seen, shown.pod, shown.pending, shown.place = True, pod, False, pod.place

    def miss(self, pod: PodSummary) -> bool:
        """Take note that a pod is gone; False: it was another one of its name."""
        shown = self.ranks.get(pod.rank)
        if shown is None or (shown.pod is not None and pod.place.uid != shown.pod.place.uid):
            return False
        shown.seen, shown.pod, shown.place = True, None, None
        return True

    def judge(self, now: float, options: KubernetesOptions, *, reported: bool) -> AttemptVerdict:
        """What its pods mean now."""
        looks: dict[int, RankLook] = {}
        for rank, each in self.ranks.items():
            each.look(now)
            if not each.pending:
                looks[rank] = RankLook(each.pod, self._facts(each, now, options, reported), _since(each.bad_since, now))
        if not self.ranks:
            nothing = RankPod(self.asked, pending=False)
            looks[0] = RankLook(None, self._facts(nothing, now, options, reported), 0.0)
        if self.asks_again_at is not None and not reported and not self.begun:
            return self._without_places(now)
        verdict = judge_ranks(looks, max(len(self.ranks), 1))
        waits = verdict.step is Step.WAIT and not self.begun and is_half_placed(looks)
        self.half_placed_since = _beginning(self.half_placed_since, now, waits)
        if _since(self.half_placed_since, now) >= options.places_seconds:
            self.half_placed_since, self.asks_again_at = None, now + options.places_seconds
            pause = f"its places are given back, and asked for again after {options.places_seconds:g} s"
            return AttemptVerdict(Step.GIVE_BACK, note=f"{verdict.note}: {pause}")
        return verdict

    def _without_places(self, now: float) -> AttemptVerdict:
        """Wait with asking for places again, so that others have them."""
        assert self.asks_again_at is not None
        if now < self.asks_again_at or self.places:
            return AttemptVerdict(Step.WAIT, note=self.note)
        self.asks_again_at = None
        return AttemptVerdict(Step.MAKE, make=tuple(sorted(self.ranks)))

    def causes(self) -> Iterator[str]:
        """Why ranks other than the first have ended, as far as the cluster knows; each once."""
        for rank, each in self.ranks.items():
            if rank and rank not in self.explained and each.pod is not None and (why := rank_cause(each.pod)):
                self.explained.add(rank)
                yield why

    def _facts(self, each: RankPod, now: float, options: KubernetesOptions, reported: bool) -> AttemptFacts:
        return AttemptFacts(
            begun=self.begun,
            reported=reported,
            seen=each.seen,
            asked_for=now - each.asked,
            hopeless_for=_since(each.hopeless_since, now),
            appears_within=options.redeliver_seconds,
            hopeless_within=options.pending_seconds,
        )


def _beginning(before: float | None, now: float, holds: bool) -> float | None:
    """Since when something holds; None: it does not."""
    return (now if before is None else before) if holds else None


def _since(moment: float | None, now: float) -> float:
    return 0.0 if moment is None else now - moment


class RankLook(NamedTuple):
    """What is seen of the pod of a rank. `bad_for`: seconds since it is gone or has failed."""

    pod: PodSummary | None
    facts: AttemptFacts
    bad_for: float


class AttemptVerdict(NamedTuple):
    """What the pods of an attempt mean. `make`: ranks whose pod is to be made again."""

    step: Step
    note: str | None = None
    exit: ProcessExit | None = None
    make: tuple[int, ...] = ()


def judge_ranks(looks: Mapping[int, RankLook], nodes: int) -> AttemptVerdict:
    """Judge an attempt by the pods of its ranks, those that are not just being made: one that ends badly ends all, one
    that vanished before the attempt began is made again."""
    verdicts = {rank: judge(look.pod, look.facts) for rank, look in looks.items()}
    if any(look.facts.reported for look in looks.values()):
        return AttemptVerdict(Step.OVER)
    for rank, verdict in _ends(looks, verdicts):
        assert verdict.exit is not None
        exit = verdict.exit
        if nodes > 1 and exit.reason is not None:
            exit = replace(exit, reason=f"rank {rank} of {nodes}: {exit.reason}")
        if nodes > 1 and exit.where:
            exit = replace(exit, where=f"rank {rank} of {nodes}: {exit.where}")
        return AttemptVerdict(Step.END, exit=exit)
    make = tuple(rank for rank, verdict in verdicts.items() if verdict.step is Step.MAKE)
    return AttemptVerdict(Step.MAKE if make else Step.WAIT, note=_note(looks, verdicts, nodes), make=make)


def is_half_placed(looks: Mapping[int, RankLook]) -> bool:
    """Whether some ranks have a place, which others may want, and some wait for one."""
    placed = [look.pod is not None and look.pod.has_place for look in looks.values()]
    return any(placed) and not all(placed)


def rank_cause(pod: PodSummary) -> str | None:
    """Why the pod of a rank has ended, with which one it is; None: the cluster knows no more than its end."""
    cause = cause_of(pod) if pod.ended and pod.nodes > 1 else None
    return None if cause is None else f"rank {pod.rank} of {pod.nodes}: {cause}"


def _ends(looks: Mapping[int, RankLook], verdicts: Mapping[int, PodVerdict]) -> Iterator[tuple[int, PodVerdict]]:
    """The ranks whose pods end the attempt."""
    for rank, verdict in sorted(verdicts.items()):
        look = looks[rank]
        if verdict.step is Step.END and not (rank and look.facts.begun):
            yield rank, verdict
        elif rank and look.facts.begun and look.bad_for >= SAYS_ITSELF_SECONDS:
            yield rank, PodVerdict(Step.END, exit=verdict.exit or _without_word(look.pod))


def _without_word(pod: PodSummary | None) -> ProcessExit:
    return exit_of(pod) if pod is not None else ProcessExit(reason="its pod was deleted")


def _ended_well(pod: PodSummary) -> bool:
    """Whether a rank has done all that it was to do: the first one may still have to upload."""
    return pod.code == 0 or (pod.code is None and pod.phase == "Succeeded")


def _note(looks: Mapping[int, RankLook], verdicts: Mapping[int, PodVerdict], nodes: int) -> str | None:
    """What an attempt waits for that has not begun."""
    if nodes == 1:
        return verdicts[0].note if 0 in verdicts else None
    running = {rank for rank, look in looks.items() if look.pod is not None and look.pod.phase == "Running"}
    if len(running) == nodes:
        begun = any(look.facts.begun for look in looks.values())
        return None if begun else "its ranks run and do not meet yet: can they reach the API server, and each other?"
    waits = [(rank, verdict.note) for rank, verdict in sorted(verdicts.items()) if verdict.note and rank not in running]
    if not waits:
        return None
    (rank, note), *others = waits
    more = f"; {len(others)} more of its ranks wait" if others else ""
    return f"rank {rank} of {nodes}: {note}{more}"
