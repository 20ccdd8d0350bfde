"""What a training or evaluating function is given: `def train(ctx: TrainContext) -> dict[str, float] | None`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from trainflow.operators.resume import Saved, SaveFolder
    from trainflow.samples.split import Split


class ReportProgress(Protocol):
    """`TaskInstance.report_progress`."""

    def __call__(
        self, done: float, total: float | None = None, unit: str = "rows", metrics: dict[str, float] | None = None
    ) -> None: ...


@dataclass(frozen=True)
class ParentCheckpoint:
    """The checkpoint that is trained on from. `path`: a local folder with its files; read it, never write into it."""

    id: str
    sequence: int
    watermark: datetime
    path: Path
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _TaskContext:
    split: Split
    #: the pipeline's parameters of this task, plain JSON values
    params: dict[str, Any]
    #: the same for the same chain and split, whenever and wherever it runs; in [0, 2^32)
    seed: int
    run_id: str
    attempt_id: str
    logger: logging.Logger
    project_root: Path
    _report: ReportProgress

    def progress(self, done: float, total: float | None = None, unit: str = "rows", **metrics: float) -> None:
        """Say how far it is: `done` (of `total`) in `unit`, with metrics of the moment. Cheap: call it every batch."""
        numbers = {name: float(value) for name, value in metrics.items()}
        # JSON has no form for nan; a point that is missing on a curve says as much
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self._report(float(done), None if total is None else float(total), unit, finite)


@dataclass(frozen=True)
class EvaluateContext(_TaskContext):
    """What an evaluating function is given: the head of the chain, and samples it has never seen."""

    parent: ParentCheckpoint


@dataclass(frozen=True)
class TrainContext(_TaskContext):
    """What a training function is given. It trains on from `parent` (None: from nothing) on exactly `split`, and
    writes the new checkpoint's files into `output`."""

    parent: ParentCheckpoint | None
    #: an empty folder of this attempt alone
    output: Path
    _saves: SaveFolder

    @property
    def saved(self) -> Saved | None:
        """How far an earlier try of this very training got: the newest state it saved, or None to begin at the start
        of the split."""
        return self._saves.latest()

    def saving(self, state: dict[str, Any]) -> AbstractContextManager[Path]:
        """Save how far it is, so that a try after a kill goes on from there.

        `with ctx.saving({"position": …}) as folder:` write what belongs to the state (weights, optimizer) into
        `folder`; the save counts once the block has ended. `state` is plain JSON.
        """
        return self._saves.saving(state)


TrainFunction = Callable[[TrainContext], "dict[str, float] | None"]
EvaluateFunction = Callable[[EvaluateContext], "dict[str, float]"]
