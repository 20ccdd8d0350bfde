"""The functions of the simulated model: it remembers everything that it was ever trained on, in order."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from tests.simulation.fiber import current
from tests.simulation.table import ROWS, edition_in, rows_of
from trainflow.operators.training.training_context import EvaluateContext, TrainContext
from trainflow.samples.splits.split_content import SplitPartition
from trainflow.storage import urls

MODEL = "model.json"
#: quality of what was trained on bad partitions, and of anything else
BAD, GOOD = 0.0, 1.0
OPTIMIZER = "optimizer.json"


class TrainingFailed(Exception):
    """The training function raised."""


def train(ctx: TrainContext) -> dict[str, float]:
    """Remember the rows of the split after those of the parent, row by row; save each, where the parameters say so."""
    known: list[str] = [] if ctx.start is None else read_model(ctx.start)
    rows = [(partition, place) for partition in _with_rows(ctx) for place in range(ROWS)]
    begun = ctx.saved.position["row"] if ctx.saved is not None else 0
    for number, (partition, place) in enumerate(rows[begun:], begun + 1):
        known.append(_read(ctx, partition)[place])
        ctx.progress(number, len(rows), "rows")
        pause(f"row {number} was trained on")
        if ctx.params["saves"]:
            ctx.save({"row": number}, partial(_write, known), every=0)
    _write(known, ctx.output)
    pause(f"{MODEL} was written")
    (ctx.output / OPTIMIZER).write_text(json.dumps({"steps": len(known)}))
    bad = any(partition.start.hour in ctx.params["bad"] for partition in _with_rows(ctx))
    return {"loss": 1.0 / len(known), "quality": BAD if bad else GOOD}


def _with_rows(ctx: TrainContext) -> list[SplitPartition]:
    return [partition for partition in ctx.split.partitions if partition.files]


def _read(ctx: TrainContext, partition: SplitPartition) -> list[str]:
    """The rows of a partition as it is now: read by the function itself, which looks at nothing else."""
    path = partition.files[0].path
    table = urls.open_storage(path, ctx.split.reading.storage_options, ctx.split.reading.root)
    with table.open(path) as file:
        return rows_of(partition.start, edition_in(file.read()))


def _write(known: list[str], folder: Path) -> None:
    (folder / MODEL).write_text(json.dumps(known))


def evaluate(ctx: EvaluateContext) -> dict[str, float]:
    """Score the head on the split."""
    pause("was evaluated")
    return {"auc": 0.5 + 0.001 * len(ctx.split.partitions)}


def read_model(folder: Path) -> list[str]:
    """What a model knows."""
    model: list[str] = json.loads((folder / MODEL).read_text())
    return model


def pause(point: str) -> None:
    """A place where a process can be killed."""
    fiber = current()
    if fiber is not None:
        fiber.pause(point)
