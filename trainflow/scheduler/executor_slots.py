"""Which executor gets a task, and whether it has a slot for it: one of this engine, of another one, or shared. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from trainflow.identifiers import did_you_mean
from trainflow.metadata.queries.in_flight import InFlightTask
from trainflow.metadata.queries.scheduled_queries import Candidate
from trainflow.settings.executors import ExecutorEntry

#: so long a task is left to an engine that has more free slots; then it is taken by any
LEFT_TO_OTHERS = timedelta(seconds=1)


#: why such a task is refused
LEFT = "left to another engine, which has more free slots"


class Refusal(NamedTuple):
    """Why a task may not be queued now, for people: the sentence is shown. `counted`: schedulers share what is used up,
    and one of them may be giving some of it back."""

    sentence: str
    counted: bool = False


class EngineLoad(NamedTuple):
    """Slots of an engine's own executor, and how many of them are in use."""

    held: int
    slots: int


def less_loaded(own: EngineLoad, others: Mapping[int, EngineLoad]) -> int | None:
    """The engine that one more task would load least, by share of its slots; None when that is this one."""
    free = [(Fraction(load.held + 1, load.slots), number) for number, load in others.items() if load.held < load.slots]
    least = min(free, default=None)
    return least[1] if least is not None and least[0] < Fraction(own.held + 1, own.slots) else None


class ExecutorSlots:
    """Free slots of the executors that are configured, counted from what is held.

    `local` has its slots in each engine, so what engine `own` holds counts (None: what all of them hold); any other one
    has them once, for all engines of the database.
    """

    def __init__(
        self,
        entries: Mapping[str, ExecutorEntry],
        default: str,
        held: Iterable[InFlightTask],
        *,
        own: int | None,
        problems: Mapping[str, str] | None = None,
        others: Mapping[int, int] | None = None,
        now: datetime | None = None,
    ) -> None:
        """`default`: the executor of tasks that name none. `problems`: of executors that take nothing now, a reason.
        `others`: the slots of `local` in the other engines that live, by their ids: they have their share until `now`
        says that a task has waited for them long enough."""
        self._default = default
        self._entries = entries
        self._now = now
        #: local slots in use, by engine
        self._held_by: Counter[int | None] = Counter()
        self._own = own
        self._others = others or {}
        self._problems = problems or {}
        self._free = {name: entry.slots for name, entry in entries.items()}
        #: named by a task, and not configured
        self._unknown: set[str] = set()
        for task in held:
            name = task.executor or default
            if name in self._free and entries[name].is_local:
                self._held_by[task.service_id] += 1
            if name in self._free and not (entries[name].is_local and own is not None and task.service_id != own):
                self._free[name] -= 1

    def name_of(self, candidate: Candidate) -> str:
        """The executor that this one is handed to."""
        return candidate.executor or self._default

    @property
    def free(self) -> int:
        """Slots that are free, of all executors that take anything."""
        return sum(free for name, free in self._free.items() if free > 0 and name not in self._problems)

    def full(self) -> set[str | None]:
        """Executors that take nothing more, as tasks name them: nothing of them needs to be looked at."""
        full = {name for name, free in self._free.items() if free <= 0} | set(self._problems) | self._unknown
        return {*full, None} if self._default in full else set(full)

    def full_for_all(self) -> frozenset[str | None]:
        """Executors that are full for every engine, as tasks name them; of `local` each has slots of its own."""
        full = {name for name, free in self._free.items() if free <= 0 and not self._entries[name].is_local}
        return frozenset({*full, None} if self._default in full else full)

    def refusal(self, candidate: Candidate) -> Refusal | None:
        """Why it takes this one not now, None if it does."""
        name = self.name_of(candidate)
        if name not in self._free:
            self._unknown.add(name)
            meant = did_you_mean(name, list(self._free), "configured")
            return Refusal(f"executor '{name}' is not configured{meant}")
        if name in self._problems:
            return Refusal(f"executor '{name}' takes nothing: {self._problems[name]}")
        if self._free[name] <= 0:
            return Refusal(f"no slot of executor '{name}' is free", counted=not self._entries[name].is_local)
        other = self._left_to(name, candidate)
        if other is None:
            return None
        # counted as if it had taken it: this one's share is what remains
        self._held_by[other] += 1
        return Refusal(LEFT)

    def _left_to(self, name: str, candidate: Candidate) -> int | None:
        if not self._others or not self._entries[name].is_local:
            return None
        if self._now is not None and self._now - candidate.scheduled_at >= LEFT_TO_OTHERS:
            return None
        own = EngineLoad(self._held_by[self._own], self._entries[name].slots)
        others = {each: EngineLoad(self._held_by[each], slots) for each, slots in self._others.items()}
        return less_loaded(own, others)

    def free_for_all(self, candidate: Candidate) -> float:
        """Slots that are free of the executor of a candidate, where other engines use them too; infinite where not."""
        name = self.name_of(candidate)
        return float("inf") if self._entries[name].is_local else self._free[name]

    def take(self, candidate: Candidate) -> None:
        """Count a choice."""
        name = self.name_of(candidate)
        self._free[name] -= 1
        if self._entries[name].is_local:
            self._held_by[self._own] += 1
