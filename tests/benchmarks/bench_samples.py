"""How much discovery and reading cost over what the machine must do anyway. Run it: `python bench_samples.py [FOLDER]`.

Prints, for 100,000 hourly partitions, the time of the next split against one plain listing; and the rows a second of
`Split.batches` against plain PyArrow over the same files. Best of several, taken in turns, for the machine is shared.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.next_split import next_split
from trainflow.samples.splits.split import Split
from trainflow.samples.table.inventory import open_inventory

START, NOW = datetime(2010, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
PARTITIONS = 100_000


def best(functions: dict[str, Callable[[], object]], turns: int = 5) -> dict[str, float]:
    """Seconds of each, the best of several turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(turns):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in times.items()}


def discovery(root: Path) -> None:
    samples = Samples(path="many/{start:%Y-%m-%dT%H}/", length_seconds=3600, start=START)
    sources = [root / f"source{number}" for number in range(4)]  # a file has at most 65,000 links
    for source in sources:
        pq.write_table(pa.table({"x": list(range(1000))}), source)
    for number in range(PARTITIONS):
        folder = root / samples.path.format(start=START + number * timedelta(hours=1))
        folder.mkdir(parents=True)
        os.link(sources[number % 4], folder / "a.parquet")
        os.link(sources[number % 4], folder / "_SUCCESS")

    def ask(number: int, most: int) -> Callable[[], object]:
        watermark = START + number * timedelta(hours=1)
        return lambda: next_split(samples, watermark, SplitLimits(partitions=most), NOW, root)

    found = best(
        {
            "one plain listing (os.listdir)": lambda: os.listdir(root / "many"),
            "next split: 1 new of 100,000": ask(0, 1),
            "next split: 14 new of 100,000": ask(PARTITIONS // 2, 14),
            "caught up": ask(PARTITIONS, 14),
            "last partition": lambda: open_inventory(samples, root, NOW).last(),
        }
    )
    for name, seconds in found.items():
        print(f"{name:40s} {1000 * seconds:9.2f} ms")


def reading(root: Path, name: str, days: int, rows: int) -> None:
    samples = Samples(path=f"{name}/{{start:%Y-%m-%d}}/", length_seconds=86400, start=START)
    for number in range(days):
        folder = root / samples.path.format(start=START + number * timedelta(days=1))
        folder.mkdir(parents=True)
        random = np.random.default_rng(number)
        columns = {f"f{n}": random.normal(size=rows) for n in range(8)}
        columns |= {f"i{n}": random.integers(0, 1000, rows) for n in range(8)}
        text = pa.array([f"category {value}" for value in random.integers(0, 50, rows)])
        pq.write_table(pa.table({**columns, "s": text}), folder / "a.parquet", row_group_size=131_072)
        (folder / "_SUCCESS").touch()
    split = next_split(samples, None, None, NOW, root).split.reached_by(root=root)  # type: ignore[union-attr]
    for batch_size in (4096, 65_536):
        found = best(
            {
                "plain": lambda size=batch_size: plain(root, split, size),
                "plain shuffled": lambda size=batch_size: plain(root, split, size, shuffled=True),
                "chronological": lambda size=batch_size: count(split.batches(batch_size=size)),
                "seeded": lambda size=batch_size: count(split.batches(batch_size=size, seed=1)),
            }
        )
        rates = "  ".join(f"{what} {split.rows / seconds / 1e6:.2f}" for what, seconds in found.items())
        print(f"{name}, batches of {batch_size}: million rows/s: {rates}")


def plain(root: Path, split: Split, batch_size: int, shuffled: bool = False) -> int:
    rows, random = 0, np.random.default_rng(0)
    for file in split.files:
        parquet = pq.ParquetFile(root / file.path)
        if not shuffled:
            rows += count(parquet.iter_batches(batch_size=batch_size))
            continue
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group)
            table = table.take(pa.array(random.permutation(table.num_rows)))
            rows += count(table.to_batches(max_chunksize=batch_size))
    return rows


def count(batches: object) -> int:
    return sum(batch.num_rows for batch in batches)  # type: ignore[attr-defined]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        discovery(Path(folder))
        reading(Path(folder), "large files", 8, 500_000)
        reading(Path(folder), "small files", 365, 900)
