"""The functions of the simulated model: it remembers everything that it was ever trained on, in order."""

from __future__ import annotations

import json
from pathlib import Path

from trainflow.operators.training import EvaluateContext, TrainContext
from trainflow.testing.simulation.fiber import current
from trainflow.testing.simulation.table import rows_of

MODEL = "model.json"
OPTIMIZER = "optimizer.json"


class Misfortune(Exception):
    """The training function raised."""


def train(ctx: TrainContext) -> dict[str, float]:
    """Remember the rows of the split after those of the parent."""
    known: list[str] = [] if ctx.parent is None else read_model(ctx.parent.path)
    for number, partition in enumerate(ctx.split.partitions, 1):
        known += rows_of(partition.start)
        ctx.progress(number, len(ctx.split.partitions), "partitions")
        pause(f"partition {number} was trained on")
    (ctx.output / MODEL).write_text(json.dumps(known))
    pause(f"{MODEL} was written")
    (ctx.output / OPTIMIZER).write_text(json.dumps({"steps": len(known)}))
    return {"loss": 1.0 / len(known)}


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
