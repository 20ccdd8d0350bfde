"""Several processes that train one split together: N ranks, one attempt.

Each rank is a program in a process group of its own with its own watch, so that nothing of it outlives the attempt; on
the host of the attempt, or the others than rank 0 on hosts of their own. The attempt's process trains nothing: it
starts the ranks, follows them, and speaks to the engine. Rank 0 alone is told to
stop, saves and reports; when a rank fails, when it is ended from outside, or when rank 0 has stopped as it was told,
the others are ended with it: they would wait for it for ever. All have to end with exit code 0.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from trainflow.operators.process_group import GRACE_SECONDS, IDLE_SECONDS

#: how long ranks may clean up after SIGTERM when another one has ended: they have nothing more to save
_PEER_GRACE_SECONDS = 1.0
#: seconds after the first bad end in which the end of a rank on another host is waited for, which may be its cause
NEWS_SECONDS = 5.0
#: ended by these a rank is lost and has not failed: what sends them is not in the code of users
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def rank_environment(rank: int, nodes: int, port: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What torch.distributed and others read. `port`: where rank 0 may listen. Processors are shared out where nothing
    else is said."""
    threads = max((os.cpu_count() or 1) // nodes, 1)
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(nodes),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(nodes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS", str(threads)),
    }


def spread_environment(rank: int, nodes: int, host: str, port: int) -> dict[str, str]:
    """The same for ranks on hosts of their own. `host`, `port`: where rank 0 may listen."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(nodes),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
    }


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this host, at one of its addresses, on which nothing listens now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def is_from_outside(code: int) -> bool:
    """Whether an exit code says that something outside of the program has ended it."""
    return code < 0 and -code in _FROM_OUTSIDE


class RankProcess(Protocol):
    """One rank, as `ProcessGroup` is one: see there."""

    tail: deque[str]
    out_of_memory: str

    @property
    def code(self) -> int | None:
        """The exit code, as soon as it has one."""
        ...

    def start(self) -> None:
        """Start it. Raises OSError."""
        ...

    def follow(self) -> int:
        """Follow it to its end, in whatever thread; its exit code."""
        ...

    def terminate(self) -> None:
        """Tell it to end, once."""
        ...

    def stop(self) -> None:
        """End it, by force after its grace."""
        ...

    def close(self) -> None:
        """End what is followed by no thread."""
        ...


class RankGroups:
    """The ranks of one attempt, in order. `on_idle` is called at least twice a second while they run, and once at the
    end, in the thread that runs them; what they print is handed on by threads."""

    def __init__(
        self, groups: Sequence[RankProcess], on_idle: Callable[[], None], *, news_seconds: float = 0.0
    ) -> None:
        """`news_seconds`: how long the end of other ranks is waited for after a bad one, which may be its cause."""
        self.groups = list(groups)
        #: the rank that was the first to be seen to end badly
        self.failed: int | None = None
        self._on_idle = on_idle
        self._news_seconds = news_seconds
        self._ended: SimpleQueue[tuple[int, int]] = SimpleQueue()
        self._threads: dict[int, threading.Thread] = {}
        self._codes: dict[int, int] = {}
        self._told = False

    def run(self) -> int:
        """Start, follow to the end, return 0, or the exit code of the rank that `failed`.

        Raises OSError when a rank cannot be started.
        """
        try:
            for group in self.groups:
                group.start()
            for rank, group in enumerate(self.groups):
                thread = threading.Thread(target=self._follow, args=(rank, group), name=f"rank {rank}", daemon=True)
                thread.start()
                self._threads[rank] = thread
            code = self._until_one_ends_all()
            self._end(_PEER_GRACE_SECONDS)
            self._on_idle()
            return code
        except BaseException:
            self.stop()
            raise

    def terminate(self) -> None:
        """SIGTERM to rank 0, once; it goes on being followed. Fit for a signal handler."""
        self._told = True
        self.groups[0].terminate()

    def stop(self) -> None:
        """End all ranks: SIGTERM, the grace, SIGKILL. Safe to call at any time and again."""
        self._end(GRACE_SECONDS)

    def _follow(self, rank: int, group: RankProcess) -> None:
        code = -signal.SIGKILL
        try:
            code = group.follow()
        finally:
            self._ended.put((rank, code))

    def _until_one_ends_all(self) -> int:
        """Wait until all have ended well, or one ends in a way that the others are to end with."""
        while len(self._codes) < len(self.groups):
            ended = self._next_end(IDLE_SECONDS)
            self._on_idle()
            if ended is None:
                continue
            rank, code = ended
            if self._told and rank == 0:
                return code
            if code != 0 and not self._told:
                self._hear_of_others()
                self.failed, code = self._culprit(rank, code)
                return code
        return self._codes[0] if self._told else 0

    def _hear_of_others(self) -> None:
        """Wait a little for news of ranks on other hosts."""
        deadline = time.monotonic() + self._news_seconds
        while len(self._codes) < len(self.groups) and (left := deadline - time.monotonic()) > 0:
            self._next_end(left)

    def _culprit(self, rank: int, code: int) -> tuple[int, int]:
        """The rank that was killed, where one was: the others soon fail because of it."""
        found = ((number, group.code) for number, group in enumerate(self.groups))
        killed = ((number, each) for number, each in found if each is not None and is_from_outside(each))
        return next(killed, (rank, code))

    def _next_end(self, seconds: float) -> tuple[int, int] | None:
        try:
            ended = self._ended.get(timeout=max(seconds, 0.0))
        except Empty:
            return None
        self._codes[ended[0]] = ended[1]
        return ended

    def _end(self, grace_seconds: float) -> None:
        """End what runs, all of it within one grace."""
        for group in self.groups:
            group.terminate()
        deadline = time.monotonic() + (_PEER_GRACE_SECONDS if self._told else grace_seconds)
        while len(self._codes) < len(self._threads) and (left := deadline - time.monotonic()) > 0:
            self._next_end(left)
        for rank, group in enumerate(self.groups):
            if rank in self._threads:
                group.stop()
                self._threads[rank].join()
            else:
                group.close()
