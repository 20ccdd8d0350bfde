"""Which trigger ends or blocks the event loop: a note of what it runs, and a pure rule over what was seen at each end.

The loop writes the number of a trigger into the note before each of its steps, and takes it away afterwards. When its
process dies or stops turning, the triggerer reads there which triggers ran: those are the suspects. The note is a few
bytes of memory that both processes share and that outlive the one, so a step costs two writes and no message.

Whatever runs at that moment is suspected. One suspect is watched by a process of its own from then on, so that the
others are disturbed once, and fails at the third time. Several (threads, or nothing noted: a thread that the trigger
started itself) are parted from the others, then halved, until one is left. A process that was killed from outside, or
stopped, says nothing about a trigger, unless one was in the middle of a step.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Collection
from enum import Enum
from typing import NamedTuple

#: a trigger that ends or blocks the event loop so often fails its task
MOST_ENDS = 3
#: no trigger: the numbers of the database begin at 1
NOTHING = 0
#: of the loop itself; what is after it belongs to its threads
LOOP_SLOT = 0
_BYTES = 8


class RunningNote:
    """A note of what runs: one number for the loop and one for each of its threads."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self.slots = memoryview(self._memory).cast("q")

    @classmethod
    def create(cls, slots: int) -> RunningNote:
        """A new one, in memory where the system has files in memory."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("trainflow-triggers")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, slots * _BYTES)
        return cls(descriptor)

    def read(self) -> tuple[int, ...]:
        """What runs, by slot; `NOTHING` in those that are idle."""
        return tuple(self.slots)

    def close(self) -> None:
        """Give the memory back."""
        self.slots.release()
        self._memory.close()
        os.close(self.descriptor)


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


class End(NamedTuple):
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
