"""The peer of `databases`: DBOS does the same on the same server. Run by an interpreter that has `dbos`: URL."""

from __future__ import annotations

import os
import statistics
import sys
import time
from itertools import pairwise

from dbos import DBOS, SetWorkflowID

MOST = 50
DBOS(
    config={
        "name": "retrigger",
        "system_database_url": sys.argv[1],
        "run_admin_server": False,
        "log_level": "ERROR",
    }
)
ends: list[float] = []
moments: list[float] = []
name = f"p{os.getpid()}"


@DBOS.step()
def head(number: int) -> int:
    return number + 1


@DBOS.step()
def train(number: int) -> dict[str, int]:
    return {"number": number}


@DBOS.step()
def commit(trained: dict[str, int]) -> int:
    return trained["number"]


@DBOS.step()
def last(number: int) -> int:
    return number


@DBOS.workflow()
def run(number: int, turn: int) -> int:
    """Four steps that hand a value over, and itself once more."""
    committed = commit(train(head(number)))
    last(committed)
    ends.append(time.time())
    if committed < MOST:
        with SetWorkflowID(f"{name}-{turn}-{committed}"):
            DBOS.start_workflow(run, committed, turn)
    return committed


@DBOS.step()
def nothing() -> None:
    moments.append(time.time())


@DBOS.workflow()
def chain() -> None:
    for _ in range(30):
        nothing()


def show(what: str, at: list[float]) -> None:
    """Print milliseconds between two."""
    gaps = [(b - a) * 1000 for a, b in pairwise(at)]
    print(f"{what:<52} {statistics.median(gaps):9.2f} ms       ({min(gaps):.2f} … {max(gaps):.2f}, n={len(gaps)})")


DBOS.launch()
for turn in range(2):  # the first warms up
    moments.clear()
    chain()
    ends.clear()
    DBOS.start_workflow(run, 0, turn)
    while len(ends) < MOST:
        time.sleep(0.02)
show("transition, end of a step to end of the next", moments)
show("self-retriggering workflow of 4 steps with a value", ends)
DBOS.destroy()
