"""Processes that the kernel killed for want of memory: whether that explains the end of one of ours.

The kernel counts such kills for each control group, and does not say whom it killed. One that ended by SIGKILL was
killed for want of memory if the count of our own group rose while it lived, at most a moment before its end was seen,
and no other end explains that kill already. So neither a kill from before, nor one in another container, nor one whose
victim was another process long ago makes the next `kill -9` look like the task's fault.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from trainflow.clock import Clock
from trainflow.humanize import bytes_text

#: a process that was killed is seen to have ended within this; the executor looks more often than that
WINDOW_SECONDS = 15.0
_CGROUPS = Path("/sys/fs/cgroup")


class OomKills:
    """Watches the count of the control group of this process, and so of what it starts."""

    def __init__(self, clock: Clock, count: Callable[[], int] | None = None) -> None:
        self._clock = clock
        self._count = count or oom_kill_counter()
        #: kills that were taken for the cause of an end
        self._explained = 0
        #: when it was looked, and how many kills nothing explained then; the first from before the window
        self._seen: deque[tuple[float, int]] = deque()
        self.look()

    def look(self) -> int:
        """Look again. Returns how many kills nothing explains: what a process that begins now has not died of."""
        now, unexplained = self._clock.monotonic(), self._count() - self._explained
        self._seen.append((now, unexplained))
        while len(self._seen) > 1 and self._seen[1][0] <= now - WINDOW_SECONDS:
            self._seen.popleft()
        return unexplained

    def explain(self, before: int) -> bool:
        """Whether one of these kills is why a process ended just now, which began when there were `before`. That kill
        explains no other end then."""
        unexplained = self.look()
        if unexplained <= max(before, self._seen[0][1]):
            return False
        self._explained += 1
        self._seen = deque((at, min(seen, unexplained - 1)) for at, seen in self._seen)
        return True


def oom_kill_counter(root: Path = _CGROUPS, proc: Path = Path("/proc")) -> Callable[[], int]:
    """What counts the kills in the memory group of this process: of cgroup version 2 or 1, or else of the whole host.
    Always 0 where none of them can be read."""
    for path in (*_files_of(proc / "self" / "cgroup", root, _KILLS), proc / "vmstat"):
        if _read(path) is not None:
            name = str(path)
            return lambda: _read(name) or 0
    return lambda: 0


def memory_ran_out(root: Path = _CGROUPS, proc: Path = Path("/proc")) -> str:
    """Say of a process of this one's memory group that the kernel has killed it for want of memory."""
    limits = [_number(path) for path in _files_of(proc / "self" / "cgroup", root, _LIMITS)]
    limit = next((each for each in limits if each is not None), None)
    allowed = f" (the limit is {bytes_text(limit)})" if limit is not None else ""
    return f"the kernel killed it because memory ran out{allowed}"


#: names of files of a memory group, of version 2 and 1
_KILLS, _LIMITS = ("memory.events", "memory.oom_control"), ("memory.max", "memory.limit_in_bytes")
#: version 1 has a number for no limit
_NO_LIMIT = 1 << 60


def _files_of(membership: Path, root: Path, names: tuple[str, str]) -> list[Path]:
    files: list[Path] = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return files
    for line in lines:
        _, controllers, group = line.split(":", 2)
        # in a container the group may be named as the host sees it, and lie at the root
        groups = (group.strip("/"), "")
        if not controllers:
            files += [root / each / names[0] for each in groups]
        elif "memory" in controllers.split(","):
            files += [root / "memory" / each / names[1] for each in groups]
    return files


def _number(path: Path) -> int | None:
    try:
        said = path.read_text().strip()
    except OSError:
        return None
    return int(said) if said.isdigit() and int(said) < _NO_LIMIT else None


def _read(path: Path | str) -> int | None:
    """Read at the launch of every attempt: without the machinery of text files."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        lines = b"\n" + os.read(descriptor, 1 << 16)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    _, found, rest = lines.partition(b"\noom_kill ")
    return int(rest.partition(b"\n")[0]) if found else None
