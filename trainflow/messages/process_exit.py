"""How the process of an attempt ended, as the process that watched it saw it."""

from __future__ import annotations

import msgspec


class ProcessExit(msgspec.Struct, frozen=True):
    """The end of a process. Exactly one of `code`, `signal` and `reason` says how.

    `reason`: its end was not seen (its host or its watcher went away); one sentence.
    """

    code: int | None = None
    signal: int | None = None
    reason: str | None = None
    #: the kernel says that it killed it for want of memory
    out_of_memory: bool = False
