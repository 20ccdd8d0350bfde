"""The processes of this host: which is alive, who descends from whom, and which belong to an attempt.

What an attempt starts is found in three ways, since each of them can be lost: by descent (the attempt is a subreaper:
also a daemon stays below it while it lives), by session and process group (which it leads), and by the mark that stands
in its environment and in that of everything it starts.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

#: environment variable of an attempt and of all it starts: the id of the attempt
MARK = "TRAINFLOW_ATTEMPT"
#: environment variable of processes that end with the one that looks after them, its pid: on hosts without an engine
WORKER_VARIABLE = "TRAINFLOW_WORKER"
#: room that is kept for an id, in bytes: the environment that the system shows is as large as it was at the start
_ROOM = 64
_NO_MARK = "-" * _ROOM


def hostname() -> str:
    """The name of this host, as `socket.gethostname` says it."""
    return os.uname().nodename


def started_at(pid: int) -> float:
    """When the process started, in clock ticks since boot; 0.0 where the system does not say (then the pid decides).

    Raises ProcessLookupError when there is no such process, or only its entry is left (a zombie).
    """
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            raise ProcessLookupError(pid) from None
        os.kill(pid, 0)
        return 0.0
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(pid)
    return float(fields[19])


def is_alive(pid: int, process_started: float) -> bool:
    """Whether this very process is alive."""
    try:
        found = started_at(pid)
    except (ProcessLookupError, PermissionError):
        return False
    return found == process_started or 0.0 in (found, process_started)


class ProcessEntry(NamedTuple):
    """One living process."""

    pid: int
    parent: int
    group: int
    session: int
    started: float


Table = dict[int, ProcessEntry]


def process_table() -> Table:
    """Every process that has not ended; what is only waited for (a zombie) is left out."""
    if not os.path.exists("/proc/self/stat"):
        return _table_by_ps()
    table: Table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
                if fields[0] not in (b"Z", b"X"):
                    parent, group, session = (int(field) for field in fields[1:4])
                    table[int(name)] = ProcessEntry(int(name), parent, group, session, float(fields[19]))
    return table


def _read(path: str) -> bytes:
    """All of an entry of /proc, without the machinery of files: there may be thousands."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = b""
        while part := os.read(descriptor, 65536):
            data += part
        return data
    finally:
        os.close(descriptor)


def _table_by_ps() -> Table:
    import subprocess

    said = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=False)
    table: Table = {}
    for line in said.stdout.splitlines():
        pid, parent, group, state = line.split()[:4]
        if not state.startswith("Z"):
            table[int(pid)] = ProcessEntry(int(pid), int(parent), int(group), int(group), 0.0)
    return table


def descendants(roots: Collection[int], table: Table) -> list[ProcessEntry]:
    """All that descends from these processes, without them."""
    children: dict[int, list[ProcessEntry]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry)
    found: dict[int, ProcessEntry] = {}
    left = list(roots)
    while left:
        for entry in children.get(left.pop(), []):
            if entry.pid not in found and entry.pid not in roots:
                found[entry.pid] = entry
                left.append(entry.pid)
    return list(found.values())


def left_by_attempt(
    attempt_id: str, leader: int | None, table: Table, adopted: Iterable[int] = ()
) -> list[ProcessEntry]:
    """What an attempt whose process `leader` has ended left running.

    `adopted`: processes that are known to be its orphans.
    """
    # a number that is in use again tells nothing of the group that once had it
    gone = leader is not None and leader not in table
    seeds = {entry.pid for entry in table.values() if gone and leader in (entry.session, entry.group)}
    seeds |= {pid for pid in table if _carries(pid, attempt_id)}
    seeds |= {pid for pid in adopted if pid in table}
    seeds -= {os.getpid()}
    return [*(table[pid] for pid in seeds), *descendants(seeds, table)]


def _carries(pid: int, attempt_id: str) -> bool:
    return mark_of(attempt_id) in _marks(pid)


def is_of_another(pid: int, attempt_id: str) -> bool:
    """Whether the process is marked as one of another attempt."""
    return bool(set(_marks(pid)) - {mark_of(attempt_id), _NO_MARK})


def _marks(pid: int) -> list[str]:
    """What the process is marked with; nothing where it has no room for that, or cannot be seen."""
    try:
        environment = _read(f"/proc/{pid}/environ").split(b"\0")
    except OSError:
        return []
    beginning = f"{MARK}=".encode()
    return [each[len(beginning) :].decode(errors="replace") for each in environment if each.startswith(beginning)]


def mark_of(attempt_id: str) -> str:
    """What marks the processes of an attempt. Two workers of one host may have been handed the same one: each ends only
    its own."""
    worker = os.environ.get(WORKER_VARIABLE)
    return attempt_id if worker is None else f"{attempt_id}.{worker}"


def with_room_for_mark(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a process whose forks are to carry marks."""
    return {**environment, MARK: _NO_MARK}


def carry_mark(attempt_id: str) -> None:
    """Mark this process, and all that it will start.

    In the environment as the system shows it as well: a fork shows what its parent was started with.
    """
    mark = mark_of(attempt_id)
    value, room = mark.encode(), room_for_mark()
    if room is not None and len(value) <= _ROOM:
        room[:] = value.ljust(_ROOM, b"\0")
    os.environ[MARK] = mark


@functools.cache
def room_for_mark() -> memoryview | None:
    """Where the mark stands in the environment that the system shows; None in a process that was given no room."""
    import ctypes

    getenv = ctypes.CDLL(None).getenv
    getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_void_p
    address = getenv(MARK.encode())
    if not address or len(ctypes.string_at(address)) != _ROOM:
        return None
    return memoryview((ctypes.c_char * _ROOM).from_address(address)).cast("B")
