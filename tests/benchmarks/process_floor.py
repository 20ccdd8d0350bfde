"""The floor under `databases`: a forked process and a commit for each task on PostgreSQL, and nothing else.

No scheduler decides, no file is loaded, no field rendered, no log kept. What is left is the price of an attempt that
can be killed (a process, forked ahead) and of an end that survives a crash of the server, and claims the next attempt
(a commit). DBOS runs its steps inside one process, and commits once for each.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from itertools import pairwise
from typing import NamedTuple

import psycopg

from tests.benchmarks.workbench import show

_TASKS, _RUNS = 4, 60


def main(url: str) -> None:
    """Print milliseconds a run of four tasks, over an empty database."""
    with psycopg.connect(url.replace("postgresql+psycopg:", "postgresql:")) as connection:
        connection.execute("CREATE TABLE attempt (id bigint PRIMARY KEY, state text)")
        connection.execute("INSERT INTO attempt VALUES (0, 'running')")
        connection.commit()
        gc.collect()
        gc.freeze()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        ends: list[float] = []
        waiting = _fork()
        for number in range(_TASKS * _RUNS):
            attempt, waiting = waiting, _fork()
            _conduct(connection, attempt, number)
            if number % _TASKS == _TASKS - 1:
                ends.append(time.perf_counter())
        _end(waiting)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        gc.unfreeze()
    gaps = [(after - before) * 1000 for before, after in pairwise(ends[10:])]
    show("run of 4 tasks, each a forked process and a commit", gaps, "ms", "the floor")


class _Process(NamedTuple):
    pid: int
    line: socket.socket


def _fork() -> _Process:
    """Fork a process ahead; told to go on, it says how it ended."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        while theirs.recv(8) == b"go on":
            theirs.send(b"said")
        os._exit(0)
    theirs.close()
    return _Process(pid, ours)


def _conduct(connection: psycopg.Connection, attempt: _Process, number: int) -> None:
    attempt.line.send(b"go on")
    attempt.line.recv(8)
    connection.execute("UPDATE attempt SET state = 'success' WHERE id = %s", (number,))
    connection.execute("INSERT INTO attempt VALUES (%s, 'running')", (number + 1,))
    connection.commit()
    _end(attempt)


def _end(attempt: _Process) -> None:
    """Let the process end, and wait for none: the kernel reaps it."""
    attempt.line.close()
