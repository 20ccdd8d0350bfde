"""The project of a session: its pipeline file, a training function that keeps a diary, its samples."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
FILES_A_DAY = 2
ROWS_A_FILE = 4
ROWS_A_DAY = FILES_A_DAY * ROWS_A_FILE
NAME = "clicks"
FILE = "pipelines/clicks.yaml"

_SETTINGS = """\
[tracking]
enabled = false
[engine]
heartbeat_seconds = 0.5
dead_after_seconds = 3.0
"""

FUNCTIONS = '''\
"""A model that is the list of the rows it was trained on, and a digest over them in their order."""

import hashlib
import json
import os
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load(folder):
    return json.loads((folder / "rows.json").read_text()) if folder else []


def write(folder, rows):
    (folder / "rows.json").write_text(json.dumps(rows))
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode())
    (folder / "weights.bin").write_bytes(digest.digest())


def train(ctx):
    rows = load(ctx.start)
    diary = os.open(ROOT / "diary" / f"{ctx.attempt_id}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(**words):
        os.write(diary, (json.dumps(words) + "\\n").encode())

    parent = ctx.parent.id if ctx.parent else None
    split = [ctx.split.start.isoformat(), ctx.split.end.isoformat()]
    note(run=ctx.run_id, training=[parent, *split], model=len(rows))
    batches = ctx.batches(batch_size=3, shuffle=ctx.params.get("shuffle", False))
    for batch in batches:
        new = [list(row) for row in zip(*(batch[name].to_pylist() for name in ("id", "edition", "x")))]
        note(rows=new)
        rows += new
        ctx.progress(batches.position["row"], total=batches.total_rows)
        ctx.save(batches.position, lambda folder: write(folder, rows), every=0)
        time.sleep(ctx.params.get("pause", 0.01))
    write(ctx.output, rows)
    note(done=len(rows))
    return {"rows": float(len(rows)), "quality": ctx.params.get("quality", 1.0)}
'''


class Layout:
    """A project in a folder, as the person edits it. `days`: how many its table will have."""

    def __init__(self, root: Path, days: int, *, shuffle: bool = False, pause: float = 0.01) -> None:
        self.root = root
        self.days = days
        self.shuffle = shuffle
        self.pause = pause
        self.partitions = 2
        self.republished = "ignore"
        self.gate = "rows is finite"
        self.keep = 4
        #: day → how often it was published
        self.editions: dict[int, int] = {}
        for name in ("configs", "pipelines", "operators", "samples", "diary"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "configs" / "trainflow.toml").write_text(_SETTINGS)
        (root / "operators" / "clicks.py").write_text(FUNCTIONS)
        self.write_pipeline()

    def write_pipeline(self, broken: str = "") -> None:
        """Save the pipeline file, as an editor does; with `broken` at its end."""
        end = FIRST_DAY + timedelta(days=self.days)
        text = (
            f"pipeline: {NAME}\nretry_delay: 0s\nretries: 4\n"
            f"params: {{shuffle: {str(self.shuffle).lower()}, pause: {self.pause}}}\n"
            f'samples:\n  path: "samples/{{start:%Y-%m-%d}}/"\n  length: 1d\n  start: {FIRST_DAY:%Y-%m-%d}\n'
            f"  end: {end:%Y-%m-%d}\n  republished: {self.republished}\n"
            f"split: {{partitions: {self.partitions}}}\n"
            f'train: {{function: "operators.clicks:train"}}\n'
            f'gates: ["{self.gate}"]\nretention: {{keep_latest: {self.keep}}}\n{broken}'
        )
        new = self.root / "pipelines" / ".clicks.yaml.new"
        new.write_text(text)
        new.replace(self.root / FILE)

    def folder(self, day: int) -> Path:
        """Where a day is, counted from 0."""
        return self.root / "samples" / f"{FIRST_DAY + timedelta(days=day):%Y-%m-%d}"

    def publish(self, day: int, *, again: bool = False) -> None:
        """Write a day as writers do: the marker goes first and comes last. `again`: the very same content."""
        edition = max(0, self.editions.get(day, 0) - 1) if again else self.editions.get(day, 0)
        self.editions[day] = edition + 1
        folder = self.folder(day)
        folder.mkdir(exist_ok=True)
        (folder / "_SUCCESS").unlink(missing_ok=True)
        for number in range(FILES_A_DAY):
            rows = rows_of(day, edition)[number * ROWS_A_FILE : (number + 1) * ROWS_A_FILE]
            ids, editions, values = (list(column) for column in zip(*rows, strict=True))
            new = folder / f".part-{number}"
            pq.write_table(pa.table({"id": ids, "edition": editions, "x": values}), new)
            new.replace(folder / f"part-{number}.parquet")
        (folder / "_SUCCESS").touch()

    def delete(self, day: int) -> None:
        """Remove a day, its marker first."""
        folder = self.folder(day)
        (folder / "_SUCCESS").unlink(missing_ok=True)
        for path in folder.glob("part-*"):
            path.unlink()
        folder.rmdir()
        self.editions.pop(day)

    def touch(self, day: int, seconds: float) -> None:
        """Set the clock of a day's files to so many seconds from the time they have."""
        for path in self.folder(day).glob("part-*"):
            before = path.stat()
            os.utime(path, (before.st_atime, before.st_mtime + seconds))


def rows_of(day: int, edition: int) -> list[list[float]]:
    """The rows of a day in one of its editions, in the order of its files: id, edition, value."""
    return [[day * ROWS_A_DAY + row, edition, round(day + row / 8 + edition / 64, 6)] for row in range(ROWS_A_DAY)]
