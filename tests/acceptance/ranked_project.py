"""A project whose model is trained by three ranks in step with each other, any of which a test disturbs at any step."""

from __future__ import annotations

import json
import sqlite3

from tests.support.live_project import LiveProject
from trainflow.testing.processes import wait_for

FILE = "pipelines/ranked.yaml"
#: three steps: two of fifteen rows and one of what is left
ROWS = 43

PIPELINE = """\
pipeline: ranked
retry_delay: 0s
samples: {path: "samples/{start:%Y-%m-%d}/", length: 1d, start: 2024-01-01, end: 2024-01-03}
split: {partitions: 2}
train: {function: "operators.ranked:train", nodes: 3, retries: 1}
"""

TRAINER = '''\
"""Train a model that is the list of its rows. Each step the ranks hand their rows to the first one, and wait for it."""

import json
import os
import signal
import time
from multiprocessing.connection import Client, Listener
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Gathering:
    """What a collective operation is to a library: all take part, or none comes out."""

    def __init__(self, ctx):
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if ctx.rank == 0:
            with Listener(address, backlog=ctx.world_size) as listener:
                found = [listener.accept() for _ in range(1, ctx.world_size)]
            self.peers = dict(sorted((peer.recv(), peer) for peer in found))
            return
        while True:
            try:
                self.first = Client(address)
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        self.first.send(ctx.rank)

    def __call__(self, ctx, rows):
        if ctx.rank:
            self.first.send(rows)
            return self.first.recv()
        found = rows + [row for peer in self.peers.values() for row in peer.recv()]
        for peer in self.peers.values():
            peer.send(found)
        return found


def meet(ctx, step):
    """What happens to this rank at this step, once."""
    for disturbance in ROOT.glob(f"disturbances/*-{ctx.rank}-{step}"):
        disturbance.unlink()
        if disturbance.name.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if disturbance.name.startswith("fail"):
            raise ValueError("on purpose")
        while not ctx.stopping:
            time.sleep(0.005)


def train(ctx):
    assert (ctx.rank, ctx.world_size) == (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    model = json.loads((ctx.start / "rows.json").read_text()) if ctx.start else []
    gather = Gathering(ctx)
    with open(ROOT / "journal.txt", "a") as journal:
        journal.write(f"begins {len(model)} {ctx.rank} {ctx.world_size} {os.getpid()}\\n")

    def write(folder):
        (folder / "rows.json").write_text(json.dumps(model))

    batches = ctx.batches(batch_size=5, shuffle=False)
    for batch in batches:
        meet(ctx, len(model) // 15)
        model += gather(ctx, batch["row"].to_pylist())
        assert ctx.save(batches.position, write, every=0) == (ctx.rank == 0)
        gather(ctx, [])  # what happens at the next step happens when this one is saved
    if ctx.rank == 0:
        write(ctx.output)
    return {"rank": ctx.rank}
'''


def lay_out_ranked(project: LiveProject, pipeline: str = PIPELINE) -> LiveProject:
    """Write the pipeline, its trainer and its samples into a project."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    project.write(FILE, pipeline)
    project.write("operators/__init__.py", "")
    project.write("operators/ranked.py", TRAINER)
    for number, (first, last) in enumerate([(0, 20), (20, ROWS)]):
        folder = project.root / "samples" / f"2024-01-0{number + 1}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"row": list(range(first, last))}), folder / "part-0.parquet", row_group_size=7)
        (folder / "_SUCCESS").touch()
    return project


def disturb(project: LiveProject, *names: str) -> None:
    """Have things happen, each once: `kill-RANK-STEP`, `fail-…`, `hold-…` (until it is told to stop)."""
    for name in names:
        project.write(f"disturbances/{name}", "")


def outcomes(project: LiveProject) -> list[str]:
    """Of each attempt of the training task."""
    return [outcome for outcome, _ in attempts(project)]


def attempts(project: LiveProject) -> list[tuple[str, str | None]]:
    """How each attempt of the training task ended, and what is said of that."""
    database = sqlite3.connect(project.home.database)
    try:
        return database.execute(
            "select a.outcome, a.problem from attempt a join task_instance t on t.id = a.task_instance_id "
            "where t.task_id = 'train' order by a.queued_at"
        ).fetchall()
    finally:
        database.close()


def begun(project: LiveProject) -> list[tuple[int, int]]:
    """How many rows the model had, and how many ranks there were, for each rank of each attempt."""
    return [(int(rows), int(ranks)) for _, rows, _, ranks, _ in project.journal()]


def ranks_of_last_attempt(project: LiveProject) -> list[int]:
    """Pids, in order."""
    begun = [(int(rank), int(pid)) for _, _, rank, _, pid in project.journal()]
    return [pid for _, pid in sorted(begun[-3:])]


def assert_trained(project: LiveProject) -> None:
    """The model has each row of the split once, in order; the ledger says so; no rank is left."""
    (checkpoint,) = project.checkpoints("ranked")
    path = project.root / "checkpoints" / checkpoint.artifacts.path / "rows.json"
    assert json.loads(path.read_text()) == list(range(ROWS))
    assert checkpoint.metrics == {"rank": 0.0}
    report = project.audit("ranked")
    assert (report.problems, report.gaps, report.duplicates, report.partitions) == ([], [], [], 2)
    ranks = {int(words[4]) for words in project.journal()}
    wait_for(lambda: not ranks & {each.pid for each in project.processes()}, "the ranks have ended")
