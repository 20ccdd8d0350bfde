"""A note of what the event loop runs at this moment, which outlives its process.

The loop writes the number of a trigger there before each of its steps, and takes it away afterwards. When the process
dies or stops turning, the triggerer reads which triggers ran: those are the suspects. It is a few bytes of memory that
both processes share, so a step costs two writes and no message.
"""

from __future__ import annotations

import mmap
import os
import tempfile

#: no trigger: the numbers of the database begin at 1
NOTHING = 0
#: of the loop itself; what is after it belongs to its threads
LOOP_SLOT = 0
_BYTES = 8


class RunningNote:
    """One number for the loop and one for each of its threads."""

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
