"""From nothing to the first task of a one-task DAG finished: new process, new home, new database."""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.benchmarks.workbench import show, throw_away_project

PIPELINE = """
from trainflow import DAG
from trainflow.operators import EmptyOperator

with DAG("one"):
    EmptyOperator(task_id="only")
"""


def main(rounds: int = 7) -> None:
    """Print seconds until the task has ended, and until the command has."""
    command = Path(sys.executable).with_name("trainflow")
    with throw_away_project(one=PIPELINE) as root:
        first, whole = [], []
        for number in range(rounds + 1):
            shutil.rmtree(root / ".trainflow", ignore_errors=True)
            began, clock = time.time(), time.perf_counter()
            subprocess.run([command, "start", "pipelines/one.py"], cwd=root, check=True, stdout=subprocess.DEVNULL)
            ended = time.perf_counter() - clock
            with closing(sqlite3.connect(root / ".trainflow" / "trainflow.db")) as connection:
                (moment,) = connection.execute("SELECT ended_at FROM task_instance").fetchone()
            task = dt.datetime.fromisoformat(moment).replace(tzinfo=dt.UTC).timestamp()
            if number:
                first.append(task - began)
                whole.append(ended)
        show("cold start: nothing to first task finished", first, "s", "≤ 0.25 s")
        show("cold start: the whole command", whole, "s", "none")


if __name__ == "__main__":
    main()
