"""What a training or evaluating function is given and may return: `def train(ctx: TrainContext) -> dict | None`.

Metrics are names with numbers; those that it reports while it runs become curves of bounded size. What the function
logs to MLflow lands in the run that mirrors this one.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainflow.errors import TaskError
from trainflow.identifiers import canonical_json
from trainflow.operators.training.save_points import (
    SAVE_SECONDS,
    FilesFolder,
    NoSaves,
    OtherRankSaves,
    Saved,
    SavePoints,
    Write,
)
from trainflow.samples.splits.split import DEFAULT_BATCH_ROWS

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.messages.execution_api import TrackingRun
    from trainflow.samples.rows.batches import Batches
    from trainflow.samples.splits.split import Split


class ReportProgress(Protocol):
    """`TaskInstance.report_progress`."""

    def __call__(
        self, done: float, total: float | None = None, unit: str = "rows", metrics: dict[str, float] | None = None
    ) -> None: ...


@dataclass(frozen=True)
class ParentCheckpoint(FilesFolder):
    """The checkpoint that is trained on from. `chain` is `pipeline/stage/branch`: another stage's where this one starts
    from an upstream; `number`: what people call it there, 0 for files that the chain adopted. `path`: a local folder
    with its files, a copy where they are not large; `parent / "model.bin"` is one of them. Read it: writing into large
    ones damages the committed checkpoint, and then nothing that was trained from it is committed."""

    id: str
    number: int
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
        self._report(float(done), None if total is None else float(total), unit, numbers)


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
    #: which process this is of how many that train the split together (`nodes`)
    rank: int = 0
    world_size: int = 1
    _saves: SavePoints | OtherRankSaves | NoSaves = field(default_factory=NoSaves)
    #: told the arguments that decide who reads what
    _reads: Callable[[int, bool, int, int], None] | None = None
    #: what `batches` has given out
    _readers: list[Batches] = field(default_factory=list)

    def progress(self, done: float, total: float | None = None, unit: str = "rows", **metrics: float) -> None:
        """Say how far it is: `done` (of `total`) in `unit`, with metrics of the moment. Cheap: call it every batch. Of
        several ranks the first one is heard."""
        if self.rank == 0:
            super().progress(done, total, unit, **metrics)

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
        rank: int | None = None,
        world_size: int | None = None,
        epochs: int = 1,
    ) -> Batches:
        """The rows of the split that are still to be trained on, as Arrow record batches: `split.batches` with this
        training's seed, from the position that was saved last; with `nodes` the share of this rank. `.position` is what
        `save` wants; in a second epoch it goes on counting, so that a retry goes on in the epoch that was cut off."""
        ranks = self.world_size if world_size is None else world_size
        if self._reads is not None:
            self._reads(batch_size, shuffle, epochs, ranks)
        reader = self.split.batches(
            columns,
            batch_size,
            self.seed if shuffle else None,
            self.rank if rank is None else rank,
            ranks,
            self.saved.position if self.saved is not None else None,
            epochs,
        )
        self._readers.append(reader)
        return reader

    @property
    def unread(self) -> str | None:
        """What to say of a function that has ended and has read a part of the rows; None: all, or none in this process
        (it may read them by other means, or in processes of its own)."""
        left = min((each.unread_rows for each in self._readers), default=0)
        rows = self.split.rows
        if not left or not rows or left >= rows:
            return None
        return (
            f"the training function has read {rows - left} of the {rows} rows of ctx.batches and ended; the whole "
            "split counts as trained"
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
        on from here. Returns whether this point is saved: where the store is elsewhere on this machine, and on its way.
        """
        return self._saves.save(position, write, state, every)

    @property
    def stopping(self) -> bool:
        """Whether the attempt was told to stop: the next `save` is the last. For loops with long steps. Of several
        ranks the first one is told alone: when it has stopped the others are ended."""
        return self._saves.stopping


TrainFunction = Callable[[TrainContext], "dict[str, float] | None"]
EvaluateFunction = Callable[[EvaluateContext], "dict[str, float]"]


SEED_BITS = 32


def seed_of(chain: str, split_digest: str, generation: int = 0) -> int:
    """A pure function of the chain (`pipeline/stage/branch`), the split and how often the chain was rewound before, in
    [0, 2^32): what NumPy accepts too."""
    key = canonical_json([chain, split_digest, generation] if generation else [chain, split_digest])
    return int.from_bytes(hashlib.sha256(key).digest()[: SEED_BITS // 8], "big")


class MetricsRefused(TaskError, TypeError):
    """What a function returned is no metrics: a mistake in its code, that another attempt would repeat."""


def checked_metrics(returned: Any, who: str) -> dict[str, float]:
    """The metrics in what `who` returned; None is none.

    Numbers of any library that know how to become a float are taken (NumPy, a tensor of one element). Raises
    MetricsRefused for what is no mapping from names to numbers. NaN and infinity are kept: a gate decides about them,
    and a metric that is left out would pass for one that was never measured.
    """
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise MetricsRefused(
            f"{who} returned {_described(returned)}: return a dict of metrics (name → number), or nothing at all"
        )
    return {_name(name, who): _number(name, value, who) for name, value in returned.items()}


def _name(name: Any, who: str) -> str:
    if not isinstance(name, str) or not name:
        raise MetricsRefused(f"{who} returned a metric named {name!r}: names are strings that are not empty")
    return name


def _number(name: str, value: Any, who: str) -> float:
    if isinstance(value, str | bytes) or value is None:
        raise MetricsRefused(f"{who} returned {name!r} = {_described(value)}: a metric is a number")
    if isinstance(value, Real):
        return float(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        hint = ""
        if isinstance(value, Mapping):
            hint = ", and each has a name of its own at the top of the dict"
        elif isinstance(value, Sequence):
            hint = ": of a curve its last value (ctx.progress draws curves)"
        raise MetricsRefused(f"{who} returned {name!r} = {_described(value)}: a metric is one number{hint}") from None


def _described(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # of the user's, as the value is
        text = "(without a repr)"
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def metrics_to_xcom(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Metrics as JSON, which has no form for nan and the infinities: those become text."""
    return {name: value if math.isfinite(value) else str(value) for name, value in metrics.items()}


def metrics_from_xcom(value: Mapping[str, Any] | None) -> dict[str, float]:
    """The inverse."""
    return {name: float(number) for name, number in (value or {}).items()}


URI_VARIABLE = "MLFLOW_TRACKING_URI"
RUN_VARIABLE = "MLFLOW_RUN_ID"
#: the mirror makes its run within moments of the run's start; seconds between questions, and how many
_ASK_EVERY_SECONDS = 0.25
_ASK_TIMES = 12


def uses_mlflow() -> bool:
    """Whether the code that was loaded so far imported MLflow."""
    return "mlflow" in sys.modules


def tracking_variables(ti: TaskInstance) -> dict[str, str]:
    """The variables MLflow reads its run from; empty when there is no mirror.

    Waits a few seconds for the run to be made. Never raises: tracking does not hurt training.
    """
    if not ti.settings.tracking.enabled:
        return {}
    try:
        run = next((run for run in _asked(ti) if run.run_id), None)
    except Exception as error:
        ti.log.warning("the run in MLflow cannot be asked for (%s): goes on without it", type(error).__name__)
        return {}
    if run is None:
        ti.log.info("there is no run in MLflow yet: what this task logs there gets a run of its own")
        return {}
    return {name: value for name, value in ((URI_VARIABLE, run.tracking_uri), (RUN_VARIABLE, run.run_id)) if value}


def enter_tracking_run(ti: TaskInstance) -> None:
    """Set the variables for this process, which belongs to one attempt."""
    os.environ.update(tracking_variables(ti))


def _asked(ti: TaskInstance) -> Iterator[TrackingRun]:
    for number in range(_ASK_TIMES):
        if number:
            ti.sleep(_ASK_EVERY_SECONDS)
        yield ti.get_tracking_run()
