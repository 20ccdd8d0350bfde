"""Pipelines for a storm, and what the files of their models must hold in the end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.support.tiny_project import FIRST_DAY, ROWS_A_DAY

NAME = "storm"
FILE = "pipelines/storm.yaml"

FUNCTIONS = '''\
"""Train a model that remembers every row and its value, in the order in which they came."""

import time

import numpy as np


def train(ctx):
    rows = np.load(ctx.start / "rows.npy") if ctx.start else np.empty(0, np.int64)
    values = np.load(ctx.start / "values.npy") if ctx.start else np.empty(0, np.float64)

    def save(to):
        np.save(to / "rows.npy", rows)
        np.save(to / "values.npy", values)

    batches = ctx.batches(batch_size=16)
    for batch in batches:
        rows = np.concatenate([rows, batch["row"].to_numpy()])
        values = np.concatenate([values, batch["x"].to_numpy()])
        ctx.progress(batches.position["row"], total=batches.total_rows)
        ctx.save(batches.position, save, every=0)
        time.sleep(0.01)  # room for what strikes between two batches
    save(ctx.output)
    return {"rows": float(len(rows))}
'''

_PIPELINE = """\
pipeline: storm
mode: {mode}
retry_delay: 0s
retries: 5
samples:
  path: "{samples}/{{start:%Y-%m-%d}}/"
  length: 1d
  start: 2024-01-01
{end}  republished: {republished}
  checks: {{min_rows: 1, columns: {{row: int64, x: double}}}}
split: {{partitions: {partitions}}}
train: {{function: "operators.storm:train"}}
gates: ["rows is finite"]
"""
_STAGES = """\
stages:
  base:
  fine: {init_from: {stage: base}}
  once: {init_from: {stage: base, once: true}}
"""


class Model(NamedTuple):
    """What a model remembers, in the order in which it was trained."""

    rows: np.ndarray
    values: np.ndarray


class Shape(NamedTuple):
    """A kind of pipeline. `chains`: its stages; `homes`: how many projects with homes of their own train it."""

    name: str
    mode: str = "backfill"
    republished: str = "ignore"
    homes: int = 1
    chains: tuple[str, ...] = ("main",)

    def pipeline(self, samples: Path, days: int, partitions: int) -> str:
        """The text of the pipeline's file."""
        end = FIRST_DAY + timedelta(days=days)
        text = _PIPELINE.format(
            mode=self.mode,
            samples=samples,
            end=f"  end: {end:%Y-%m-%d}\n" if self.mode == "backfill" else "",
            republished=self.republished,
            partitions=partitions,
        )
        return text + (_STAGES if len(self.chains) > 1 else "")


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("backfill"),
        Shape("replay", republished="replay"),
        Shape("latest", mode="latest"),
        Shape("latest-replay", mode="latest", republished="replay"),
        Shape("stages", chains=("base", "fine", "once")),
        Shape("two-homes", homes=2),
        Shape("two-homes-replay", homes=2, republished="replay"),
    )
}


#: day, edition → the values of its rows in the order of their ids
Editions = Callable[[int, int], np.ndarray]


def problems_of(shape: Shape, stage: str, model: Model, days: int, editions: list[int], values: Editions) -> list[str]:
    """Say everything that is wrong with a model, from what it remembers alone.

    `editions`: how often each day was published, at least once. Every row must be there as often as the stage trains
    it, and all rows of one training of a day must be of one edition; with `republished: replay` of the newest.
    """
    found = [*_wrong_counts(stage, model, days)]
    for day in range(days):
        of_day = model.rows // ROWS_A_DAY == day
        rows, seen = model.rows[of_day], model.values[of_day]
        for again in range(max(1, len(rows) // ROWS_A_DAY)):
            part = slice(again * ROWS_A_DAY, (again + 1) * ROWS_A_DAY)
            matching = [
                edition
                for edition in range(editions[day])
                if np.array_equal(values(day, edition)[rows[part] - day * ROWS_A_DAY], seen[part])
            ]
            if not matching:
                found.append(f"day {day}: its rows are of no one edition")
            elif shape.republished == "replay" and matching[-1] != editions[day] - 1:
                found.append(f"day {day}: trained on edition {matching[-1]}, the newest is {editions[day] - 1}")
    return found


def _wrong_counts(stage: str, model: Model, days: int) -> list[str]:
    counts = np.bincount(model.rows, minlength=days * ROWS_A_DAY)
    if len(counts) > days * ROWS_A_DAY:
        return [f"rows that were never published: {np.flatnonzero(counts[days * ROWS_A_DAY :])[:5].tolist()}"]
    wanted = np.full(days * ROWS_A_DAY, 2 if stage == "once" else 1)
    if stage == "fine":  # each run starts from the base and trains its own split once more: the last one shows
        last = int(model.rows[-1]) // ROWS_A_DAY if len(model.rows) else 0
        first = last
        while first > 0 and counts[(first - 1) * ROWS_A_DAY] == 2:
            first -= 1
        wanted[first * ROWS_A_DAY :] = 2
    wrong = np.flatnonzero(counts != wanted)
    return [f"row {row} was trained {counts[row]} times, not {wanted[row]}" for row in wrong[:5]]
