"""What a training or evaluating function is given: `def train(ctx: TrainContext) -> dict[str, float] | None`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainflow.operators.intermediate_saves import SAVE_SECONDS, NoSaves, Saved, SavePoints, Write
from trainflow.samples.splits.split import DEFAULT_BATCH_ROWS

if TYPE_CHECKING:
    from trainflow.samples.rows.batches import Batches
    from trainflow.samples.splits.split import Split


class ReportProgress(Protocol):
    """`TaskInstance.report_progress`."""

    def __call__(
        self, done: float, total: float | None = None, unit: str = "rows", metrics: dict[str, float] | None = None
    ) -> None: ...


@dataclass(frozen=True)
class ParentCheckpoint:
    """The checkpoint that is trained on from. `chain` is `pipeline/stage/branch`: another stage's where this one starts
    from a base. `path`: a local folder with its files, a copy where they are not large. Read it: writing into large
    ones damages the committed checkpoint, and then nothing that was trained from it is committed."""

    id: str
    sequence: int
    watermark: datetime
    path: Path
    metrics: dict[str, float] = field(default_factory=dict)
    chain: str = ""


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

    def batches(self, columns: list[str] | None = None, batch_size: int = DEFAULT_BATCH_ROWS) -> Batches:
        """All rows of the split, in chronological order, as Arrow record batches: `split.batches`."""
        return self.split.batches(columns, batch_size)


@dataclass(frozen=True)
class TrainContext(_TaskContext):
    """What a training function is given. It trains on from `parent` (None: from nothing) on exactly `split`, and
    writes the new checkpoint's files into `output`."""

    parent: ParentCheckpoint | None
    #: an empty folder of this attempt alone
    output: Path
    _saves: SavePoints | NoSaves = field(default_factory=NoSaves)

    @property
    def saved(self) -> Saved | None:
        """How far earlier attempts at this very training got: the newest save (`.position`, `.path`, `.state`), or None
        to begin at the start of the split."""
        return self._saves.saved

    @property
    def start(self) -> Path | None:
        """The folder with the files to go on from: of the newest save, else of the parent; None: from nothing."""
        if self.saved is not None:
            return self.saved.path
        return self.parent.path if self.parent is not None else None

    def batches(
        self,
        columns: list[str] | None = None,
        batch_size: int = DEFAULT_BATCH_ROWS,
        *,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        epochs: int = 1,
    ) -> Batches:
        """The rows of the split that are still to be trained on, as Arrow record batches: `split.batches` with this
        training's seed, from the position that was saved last. `.position` is what `save` wants; in a second epoch it
        goes on pluralize, so that a retry goes on in the epoch that was cut off."""
        return self.split.batches(
            columns,
            batch_size,
            self.seed if shuffle else None,
            rank,
            world_size,
            self.saved.position if self.saved is not None else None,
            epochs,
        )

    def save(
        self,
        position: Mapping[str, Any],
        write: Write,
        *,
        state: Mapping[str, Any] | None = None,
        every: float = SAVE_SECONDS,
    ) -> bool:
        """Say that training could go on from here: call it after every batch.

        `position` is `batches.position`. `write(folder)` writes what belongs to it (weights, optimizer) into an empty
        folder; `state` is plain JSON that comes back as `saved.state`. It is called when `every` seconds have passed
        since the last save (0: each time), less often where saving would take more than a tenth of the time, and
        when the attempt was told to stop: then TaskPreempted is raised once all is written, and the next attempt goes
        on from here. Returns whether this point is saved.
        """
        return self._saves.save(position, write, state, every)

    @property
    def stopping(self) -> bool:
        """Whether the attempt was told to stop: the next `save` is the last. For loops with long steps, and for ranks
        that must stop together."""
        return self._saves.stopping


TrainFunction = Callable[[TrainContext], "dict[str, float] | None"]
EvaluateFunction = Callable[[EvaluateContext], "dict[str, float]"]
