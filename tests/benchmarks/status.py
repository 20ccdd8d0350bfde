"""`trainflow status` and `why` of a project with 40 chains that have trained for a while, as whole processes."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tests.benchmarks.workbench import show, throw_away_project
from tests.support.run_histories import write_history
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import TrainedPartition
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.clock import SystemClock
from trainflow.samples.table.inventory import open_inventory
from trainflow.serialization.document import DagDocument, encode
from trainflow.settings.project import project_at
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import DAY, append_many, day
from trainflow.workspace.pipelines import read_pipeline
from trainflow.workspace.workspace import Workspace

CHAINS, CHECKPOINTS, RUNS, AHEAD = 40, 60, 500, 3
PIPELINE = """\
pipeline: {name}
samples:
  files: "*.csv"
  path: "data/{name}/date={{start:%Y-%m-%d}}/"
  length: 1d
  start: 2013-01-01
  ready: {{min_files: 1}}
train: {{command: ["true"]}}
"""


def main(rounds: int = 10) -> None:
    """Print seconds of a person and of the processor."""
    with throw_away_project() as root:
        prepare(root)
        for what, arguments, budget in (
            (f"status, {CHAINS} chains of {RUNS} runs", ["status"], "≤ 0.3 s"),
            ("status --json", ["status", "--json"], "≤ 0.3 s"),
            ("why", ["why"], "≤ 0.3 s"),
        ):
            walls, costs = zip(*(_asked(root, arguments) for _ in range(rounds + 1)), strict=True)
            show(what, walls[1:], "s", budget)
            show("… processor", costs[1:], "s", "")


def _asked(root: Path, arguments: list[str]) -> tuple[float, float]:
    began, spent = time.perf_counter(), _spent_by_children()
    command = [str(Path(sys.executable).with_name("trainflow")), *arguments]
    subprocess.run(command, check=True, cwd=root, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, _spent_by_children() - spent


def _spent_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def prepare(root: Path, chains: int = CHAINS, runs: int = RUNS) -> None:
    """Chains with checkpoints and samples ahead of them, and a history of runs of seven tasks each."""
    project = project_at(root)
    with Workspace.of(project) as workspace:
        for number in range(chains):
            name = f"model_{number:02}"
            (root / f"pipelines/{name}.yaml").write_text(PIPELINE.format(name=name))
            for date in range(CHECKPOINTS + AHEAD):
                folder = root / f"data/{name}/date={day(date):%Y-%m-%d}"
                folder.mkdir(parents=True)
                (folder / "part-0.csv").write_text("1\n")
        (first,) = read_pipeline(workspace, root / "pipelines/model_00.yaml", {}).documents
        for number in range(chains):
            document = _renamed(first, f"model_{number:02}")
            _write_chain(root, document)
            with workspace.database.transaction() as connection:
                write_history(connection, document, runs, place=number)


def _renamed(document: DagDocument, name: str) -> DagDocument:
    return msgspec.json.decode(encode(document).replace(b"model_00", name.encode()), type=DagDocument)


def _write_chain(root: Path, document: DagDocument) -> None:
    assert document.chain is not None
    assert document.chain.samples is not None
    # as if they had been trained a day after they were written: a listing says that they are what they were
    inventory = open_inventory(document.chain.samples, root, SystemClock().now() + DAY)
    ledger = Ledger(LocalStore(root / "checkpoints"), ChainKey(document.dag_id))
    inventory.states([day(number) for number in range(CHECKPOINTS)])
    contents = [inventory.content(day(number)) for number in range(CHECKPOINTS)]
    trained = [TrainedPartition(each.start, each.end, each.fingerprint, 10, each.hint) for each in contents]
    append_many(ledger, CHECKPOINTS, *trained)


if __name__ == "__main__":
    main()
