"""Which trigger ends or blocks the event loop: a pure rule over what was seen at each end of its process.

Whatever runs at that moment is suspected. One suspect is watched by a process of its own from then on, so that the
others are disturbed once, and fails at the third time. Several (threads, or nothing noted: a thread that the trigger
started itself) are parted from the others, then halved, until one is left. A process that was killed from outside, or
stopped, says nothing about a trigger, unless one was in the middle of a step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from trainflow.triggerer.running_note import LOOP_SLOT, NOTHING

#: a trigger that ends or blocks the event loop so often fails its task
MOST_ENDS = 3


class CrashCause(Enum):
    """What is known about the end of an event loop."""

    #: it exited or crashed
    ITSELF = "itself"
    #: it did not turn any more, and was killed for that
    STALLED = "stalled"
    #: killed for want of memory
    OUT_OF_MEMORY = "out of memory"
    #: killed from outside
    KILLED = "killed"


@dataclass(frozen=True)
class End:
    """One end of an event loop."""

    cause: CrashCause
    #: the triggers that it watched
    watched: frozenset[int]
    #: the triggers that ran, the loop's first (see `RunningNote`)
    running: tuple[int, ...] = (NOTHING,)


class Verdict(NamedTuple):
    """What follows from an end."""

    #: this trigger fails its task
    failed: int | None = None
    #: these are watched by a process of their own from now on
    apart: frozenset[int] = frozenset()


class Blame:
    """Remembers what each trigger is suspected of."""

    def __init__(self) -> None:
        self._ends: Counter[int] = Counter()
        #: triggers that were there when one ended for no known reason
        self._unexplained: set[int] = set()

    def judge(self, end: End) -> Verdict:
        """What becomes of the triggers that this event loop watched."""
        running = _suspects(end)
        if running:
            return self._part(running, end.watched)
        if end.cause is not CrashCause.ITSELF and end.cause is not CrashCause.STALLED:
            return Verdict()
        # nothing was noted: once may be chance
        again = end.watched <= self._unexplained
        self._unexplained |= end.watched
        return self._part(end.watched, end.watched) if again else Verdict()

    def forget(self, triggers: Collection[int]) -> None:
        """Forget waits that are over."""
        for each in triggers:
            self._ends.pop(each, None)
            self._unexplained.discard(each)

    def _part(self, suspects: frozenset[int], watched: frozenset[int]) -> Verdict:
        if len(suspects) == 1:
            [suspect] = suspects
            self._ends[suspect] += 1
            if self._ends[suspect] >= MOST_ENDS:
                return Verdict(failed=suspect)
        elif suspects == watched:
            suspects = frozenset(sorted(suspects)[: len(suspects) // 2])
        return Verdict(apart=suspects if suspects != watched else frozenset())


def _suspects(end: End) -> frozenset[int]:
    running = [each if each in end.watched else NOTHING for each in end.running]
    in_loop, in_threads = running[: LOOP_SLOT + 1], running[LOOP_SLOT + 1 :]
    match end.cause:
        case CrashCause.STALLED:
            # a thread holds the loop up only where nothing runs in it: it does not let go of the interpreter
            chosen = in_loop if any(in_loop) else in_threads
        case CrashCause.KILLED:
            # waiting in a thread is no step: an innocent one may do that most of the time
            chosen = in_loop
        case CrashCause.ITSELF | CrashCause.OUT_OF_MEMORY:
            chosen = running
    return frozenset(chosen) - {NOTHING}
