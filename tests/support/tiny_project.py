"""A project that trains in no time: thirty days of forty rows, and a model that knows which rows it has seen.

The model's `rows.npy` holds the id of every row it was trained on, in order: whether each row came exactly once is read
from the model itself, not from a report. Its weights depend on the order, so two models are equal only when they
saw the same rows in the same order.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from tests.support.live_project import WITHOUT_MLFLOW, LiveProject

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 30
ROWS_A_DAY = 40
PARTITIONS_A_SPLIT = 3
NAME = "tiny"
FILE = "pipelines/tiny.yaml"

PIPELINE = """\
pipeline: tiny
retry_delay: 0s
samples:
  path: "samples/{start:%Y-%m-%d}/"
  length: 1d
  start: 2024-01-01
  end: 2024-01-31
  checks: {min_rows: 1, columns: {row: int64, x: double}}
split: {partitions: 3}
evaluate: {function: "operators.tiny:evaluate"}
train: {function: "operators.tiny:train"}
gates: ["loss is finite"]
"""

#: the functions note what they do in `journal.txt`, and wait while there is a file `hold` and they are
#: not told to stop
FUNCTIONS = '''\
"""Train a model that remembers its rows."""

import os
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent


def note(*words, file="journal.txt"):
    """One line, in one write: a killed process has written it or not."""
    line = " ".join(str(word) for word in words) + "\\n"
    descriptor = os.open(ROOT / file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def hold(name="hold", ctx=None):
    if (ROOT / name).exists():
        note("holding", os.getpid(), name)
    while (ROOT / name).exists() and not (ctx and ctx.stopping):
        time.sleep(0.005)


def train(ctx):
    rows = np.load(ctx.start / "rows.npy") if ctx.start else np.empty(0, np.int64)
    weight = float(np.load(ctx.start / "weight.npy")) if ctx.start else 0.0
    note("begins", ctx.run_id, ctx.split.start.date(), os.getpid(), "resumes" if ctx.saved else "afresh")

    def save(to):
        np.save(to / "rows.npy", rows)
        np.save(to / "weight.npy", weight)

    batches = ctx.batches(batch_size=16)
    for batch in batches:
        rows = np.concatenate([rows, batch["row"].to_numpy()])
        for x in batch["x"].to_numpy():
            weight = 0.9 * weight + float(x)
        ctx.progress(len(rows))
        ctx.save(batches.position, save, every=0)
        hold(ctx=ctx)
    save(ctx.output)
    for partition in ctx.split.partitions:
        note("trained", ctx.run_id, partition.start.date())
    return {"loss": abs(weight)}


def evaluate(ctx):
    weight = float(np.load(ctx.parent.path / "weight.npy"))
    seen = sum(batch.num_rows for batch in ctx.split.batches())
    return {"score": weight, "rows": seen}
'''


def tiny_project(
    root: Path,
    *,
    settings: str = "",
    days: int = DAYS,
    pipeline: str = PIPELINE,
    samples_of: LiveProject | None = None,
) -> LiveProject:
    """Lay it out with so many `days` of samples, at whose end its table ends.

    `settings` are added to those that switch MLflow off; with a [tracking] of their own they replace them.
    `samples_of`: have the very same files as another (a seed depends on their fingerprints).
    """
    project = LiveProject(root, settings if "[tracking]" in settings else WITHOUT_MLFLOW + settings)
    end = FIRST_DAY + timedelta(days=max(days, 1))
    project.write(FILE, pipeline.replace("end: 2024-01-31", f"end: {end:%Y-%m-%d}"))
    project.write("operators/__init__.py", "")
    project.write("operators/tiny.py", FUNCTIONS)
    if samples_of is not None:
        project.copy_of(samples_of.root, "samples")
    for number in range(0 if samples_of else days):
        publish(project, number)
    return project


def publish(
    project: LiveProject, number: int, *, marker: bool = True, edition: int = 0, rows: int = ROWS_A_DAY
) -> Path:
    """Write one day, counted from 0, and its marker. Each edition has the same rows with other values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = folder_of(project, number)
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.arange(number * ROWS_A_DAY, number * ROWS_A_DAY + rows, dtype=np.int64)
    values = np.random.default_rng([number, edition]).normal(size=rows)
    pq.write_table(pa.table({"row": ids, "x": values}), folder / "part-0.parquet")
    if marker:
        (folder / "_SUCCESS").touch()
    return folder


def folder_of(project: LiveProject, number: int) -> Path:
    """The folder of one day, counted from 0."""
    return project.root / "samples" / f"{FIRST_DAY + timedelta(days=number):%Y-%m-%d}"


def expected_boundaries(days: int = DAYS, each: int = PARTITIONS_A_SPLIT) -> list[tuple[datetime, datetime]]:
    """The splits of an undisturbed backfill."""
    starts = range(0, days, each)
    return [
        (FIRST_DAY + timedelta(days=first), FIRST_DAY + timedelta(days=min(first + each, days))) for first in starts
    ]


def model(project: LiveProject, name: str = NAME) -> tuple[np.ndarray, float]:
    """(row ids in the order they were trained on, weight) of the head."""
    ledger = project.ledger(name)
    folder = ledger.store.local_path(ledger.checkpoint().artifacts.path)
    assert folder is not None
    return np.load(folder / "rows.npy"), float(np.load(folder / "weight.npy"))


def digest(project: LiveProject, name: str = NAME) -> str:
    """Digest of the head's files."""
    files = project.ledger(name).checkpoint().artifacts.files
    return hashlib.sha256("".join(f"{file.path}{file.sha256}" for file in files).encode()).hexdigest()


def assert_trained_exactly_once(project: LiveProject, days: int = DAYS, name: str = NAME) -> None:
    """Ledger, files and model agree: every row of every day, once, and the splits are those of an undisturbed run."""
    report = project.audit(name)
    assert (report.problems, report.gaps, report.duplicates, report.holes) == ([], [], [], [])
    assert report.partitions == days
    assert project.boundaries(name) == expected_boundaries(days)
    rows, _ = model(project, name)
    assert sorted(rows.tolist()) == list(range(days * ROWS_A_DAY))
