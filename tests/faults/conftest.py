"""A commit in a process of its own that is killed on its way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.storage.local import LocalStore

#: the instructions of the worker; it dies after a step of the commit, beside the creation of its entry, or when a gate
#: stops the chain
WORKER = """
import os, signal, sys
import msgspec
from pathlib import Path
from trainflow.checkpoints.commit.commit import STEPS, Commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.storage.local import LocalStore
from trainflow.errors import ChainStopped
from trainflow.testing.chains import day

store, request, last = LocalStore(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes(), sys.argv[3]

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if last == "before link":
    os.link = die
if last == "after link":
    link = os.link
    os.link = lambda *args, **kwargs: (link(*args, **kwargs), die())
work = Commit(Ledger(store, (found := msgspec.json.decode(request, type=CommitRequest)).chain), found, day(5))
for name, step in STEPS:
    try:
        step(work)
    except ChainStopped:
        die()
    if name == last:
        die()
"""


@pytest.fixture
def commit_and_die(tmp_path: Path) -> Callable[[LocalStore, CommitRequest, str], None]:
    """`commit_and_die(store, request, last)`: commit on day 5, and be killed after the step `last`."""

    def run(store: LocalStore, request: CommitRequest, last: str) -> None:
        file = tmp_path / "request.json"
        file.write_bytes(msgspec.json.encode(request))
        command = [sys.executable, "-c", WORKER, str(store.root), str(file), last]
        worker = subprocess.run(command, capture_output=True, check=False, timeout=240)
        assert worker.returncode == -signal.SIGKILL, worker.stderr.decode()

    return run
