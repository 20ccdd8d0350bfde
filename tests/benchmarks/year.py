"""A year of hourly partitions, backfilled one partition a run by a trainer that does nothing: is run 8,760 as cheap as
the first? `python -m tests.benchmarks.year [PARTITIONS]`; takes minutes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.benchmarks.processes import cpu_seconds, pss_mib, tree
from tests.benchmarks.workbench import throw_away_project

START = datetime(2024, 1, 1, tzinfo=UTC)
PIPELINE = """\
pipeline: year
samples:
  path: "samples/{{start:%Y-%m-%dT%H}}/"
  length: 1h
  start: 2024-01-01
  end: {end:%Y-%m-%dT%H:%M:%S}
split: {{partitions: 1}}
train: {{function: "operators.nothing:train"}}
"""
TRAINER = """
def train(ctx):
    (ctx.output / "model.txt").write_text(str(ctx.split.start))
    return {"loss": 0.5}
"""


def lay_out(root: Path, partitions: int) -> None:
    """Partitions of one small file and a marker each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "operators").mkdir()
    (root / "operators" / "__init__.py").touch()
    (root / "operators" / "nothing.py").write_text(TRAINER)
    end = START + partitions * timedelta(hours=1)
    (root / "pipelines" / "year.yaml").write_text(PIPELINE.format(end=end))
    source = root / "source.parquet"
    pq.write_table(pa.table({"x": list(range(10))}), source)
    for number in range(partitions):
        folder = root / "samples" / f"{START + number * timedelta(hours=1):%Y-%m-%dT%H}"
        folder.mkdir(parents=True)
        os.link(source, folder / "a.parquet")
        os.link(source, folder / "_SUCCESS")


def ends(root: Path) -> list[float]:
    """When each run ended, in seconds since the epoch, in order."""
    database = root / ".trainflow" / "trainflow.db"
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT ended_at FROM dag_run WHERE ended_at IS NOT NULL ORDER BY number").fetchall()
    return [datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() for (moment,) in found]


def count(root: Path) -> int:
    """How many runs have ended. Counts files of the ledger: asking the database costs more with each run."""
    folder = root / "checkpoints" / "year" / "main" / "main" / "ledger"
    return sum(1 for entry in os.scandir(folder) if entry.name.endswith(".json")) if folder.is_dir() else 0


def main(partitions: int = 8_760) -> None:
    """Print milliseconds of each run (wall and processor) for each tenth of the year, and the memory at its end."""
    command = Path(sys.executable).with_name("trainflow")
    with throw_away_project() as root:
        lay_out(root, partitions)
        process = subprocess.Popen(
            [command, "start", "--plain", "pipelines/year.yaml"], cwd=root, stdout=subprocess.DEVNULL
        )
        used: list[tuple[int, float, float]] = []
        while process.poll() is None:
            done = count(root)
            if done >= len(used) * partitions // 10:
                pids = tree(process.pid)
                used.append((done, cpu_seconds(pids), pss_mib(pids)))
            time.sleep(1.0)
        moments = ends(root)
        gaps = [(after - before) * 1000 for before, after in pairwise(moments)]
        print(f"{len(moments)} runs, exit code {process.returncode}")
        for number, ((first, cpu_before, _), (last, cpu_after, memory)) in enumerate(pairwise(used), 1):
            cpu = (cpu_after - cpu_before) * 1000 / max(1, last - first)
            wall = median(gaps[min(first, len(gaps) - 1) : last] or [0.0])
            print(
                f"tenth {number:2}: runs {first:5} to {last:5}: {wall:7.1f} ms a run, {cpu:7.1f} ms of processor, "
                f"{memory:6.1f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8_760)
