"""Train with a program instead of a function: how it is told what to do, and how it answers.

The variable TRAINFLOW_TASK names a JSON file:

    {"version": 1, "dag_id", "run_id", "task_id", "try_number", "attempt_id",
     "chain":    "pipeline/stage/branch",
     "project":  folder of the project (relative sample paths belong to it; the program runs in it),
     "split":    start, end, partitions with their files, holes (see `trainflow.samples.splits.split.Split`),
     "parent":   {"id", "number", "watermark", "path": local folder with its files, "metrics"} or null,
     "output":   the folder to write the new checkpoint's files into,
     "params":   {…},  "seed": integer in [0, 2^32),
     "metrics":  file to write {"name": number} into before it ends (optional),
     "progress": file to append lines to, each {"done": 5, "total": 10, "unit": "rows", "metrics": {…}} (optional),
     "saved":    {"position", "path": local folder with its files, "state"} of the newest save of earlier attempts at
                 this very training, or null,
     "saves":    folder to leave saves in (optional, see `trainflow.operators.training.saves_folder`),
     "rank", "world_size": which process this is of how many that train together (`nodes`)}

For shell scripts TRAINFLOW_OUTPUT, TRAINFLOW_PARENT and TRAINFLOW_SAVED (empty when there is none), TRAINFLOW_SAVES,
TRAINFLOW_METRICS and TRAINFLOW_PROGRESS hold the paths alone; for Python `training_task()` makes a TrainContext of it
all. Options for storage are not in the file: the program has the project's settings and environment.

Exit code 0 and at least one file in `output` is success. When the task is told to stop, the program and all it started
get SIGTERM once, and SIGKILL when most of the grace is over: until then it can save. However it ends then, the task is
preempted, and its next attempt goes on from the newest save.

With `nodes: N` the program is started N times on the host, each time with a file of its own and the variables that
`ranks.rank_environment` lists. `split`, `parent`, `saved` and `output` are the same for all; what the others than rank
0 leave in `metrics`, `progress` and `saves` is not looked at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.clock import SystemClock
from trainflow.errors import InputError
from trainflow.operators.training.rank_protocol import RankFunction, note_reading
from trainflow.operators.training.save_points import OtherRankSaves, Saved, SavePoints
from trainflow.operators.training.saves_folder import FolderSaves, SignalStopRequest
from trainflow.operators.training.training_context import ParentCheckpoint, TrainContext

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance

TASK_VARIABLE = "TRAINFLOW_TASK"
TASK_FILE = "task.json"
VERSION = 1


class TrainingTask(msgspec.Struct, frozen=True, kw_only=True):
    """What the JSON file holds."""

    version: int
    dag_id: str
    run_id: str
    task_id: str
    try_number: int
    attempt_id: str
    chain: str
    project: str
    split: dict[str, Any]
    parent: dict[str, Any] | None
    output: str
    params: dict[str, Any]
    seed: int
    metrics: str
    progress: str
    saved: dict[str, Any] | None
    saves: str
    rank: int = 0
    world_size: int = 1
    #: where one of several notes how it reads the split, and says why it failed
    reading: str = ""
    problem: str = ""
    #: where the function is that it calls; None: a program
    function: RankFunction | None = None


class ProgressLine(msgspec.Struct, frozen=True):
    """One line of the progress file."""

    done: float
    total: float | None = None
    unit: str = "rows"
    #: null: it was no number
    metrics: dict[str, float | None] = msgspec.field(default_factory=dict)


def environment_of(task: TrainingTask, folder: Path) -> dict[str, str]:
    """The variables of a program that finds its task in `folder`."""
    return {
        TASK_VARIABLE: str(folder / TASK_FILE),
        "TRAINFLOW_OUTPUT": task.output,
        "TRAINFLOW_PARENT": task.parent["path"] if task.parent else "",
        "TRAINFLOW_SAVED": task.saved["path"] if task.saved else "",
        "TRAINFLOW_SAVES": task.saves,
        "TRAINFLOW_METRICS": task.metrics,
        "TRAINFLOW_PROGRESS": task.progress,
    }


def training_task(environ: Mapping[str, str] | None = None) -> TrainContext:
    """The TrainContext that a training function would be given, in a training program written in Python.

    Metrics are answered by writing `json` into the file TRAINFLOW_METRICS names. Raises InputError outside of a task.
    """
    from trainflow.settings.load import load_settings
    from trainflow.settings.project import project_at

    task = read_task(os.environ if environ is None else environ)
    return context_of(task, load_settings(project_at(Path(task.project))).samples.storage_options)


def read_task(environ: Mapping[str, str]) -> TrainingTask:
    """What a training program is told. Raises InputError outside of a task."""
    location = environ.get(TASK_VARIABLE)
    if not location:
        raise InputError(f"{TASK_VARIABLE} is not set: training_task() works only in the command of a TrainOperator")
    return msgspec.json.decode(Path(location).read_bytes(), type=TrainingTask)


def context_of(task: TrainingTask, sample_options: Mapping[str, Any]) -> TrainContext:
    """The TrainContext of a process that is told `task`. `sample_options` reach the samples."""
    import logging

    from trainflow.samples.splits.split import Split

    root, logger = Path(task.project), logging.getLogger("trainflow.task")
    saved = _saved_of(task.saved)
    saves = FolderSaves(Path(task.saves), saved)
    return TrainContext(
        split=msgspec.convert(task.split, Split).reached_by(root=root, storage_options=sample_options),
        parent=_parent_of(task.parent),
        params=task.params,
        seed=task.seed,
        output=Path(task.output),
        run_id=task.run_id,
        attempt_id=task.attempt_id,
        logger=logger,
        project_root=root,
        rank=task.rank,
        world_size=task.world_size,
        _report=_ProgressWriter(Path(task.progress)),
        _saves=OtherRankSaves(saved) if task.rank else SavePoints(saves, SignalStopRequest(), SystemClock(), logger),
        _reads=note_reading(Path(task.reading)) if task.world_size > 1 else None,
    )


class _ProgressWriter:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(
        self, done: float, total: float | None = None, unit: str = "rows", metrics: dict[str, float] | None = None
    ) -> None:
        line = msgspec.json.encode(ProgressLine(done, total, unit, {**(metrics or {})}))
        with self._path.open("ab") as file:
            file.write(line + b"\n")


def task_of(
    training: TrainContext,
    chain: str,
    folder: Path,
    ti: TaskInstance,
    rank: int,
    nodes: int,
    function: RankFunction | None,
) -> TrainingTask:
    """What one of `nodes` programs is told that answers in `folder`."""
    parent, saved = training.parent, training.saved
    return TrainingTask(
        version=VERSION,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        try_number=ti.try_number,
        attempt_id=ti.attempt_id,
        chain=chain,
        project=str(ti.project_root),
        split=msgspec.to_builtins(training.split),
        parent=None if parent is None else msgspec.to_builtins(parent, enc_hook=str),
        output=str(training.output),
        params=training.params,
        seed=training.seed,
        metrics=str(folder / "metrics.json"),
        progress=str(folder / "progress.jsonl"),
        saved=None if saved is None else {**vars(saved), "path": str(saved.path)},
        saves=str(folder / "saves"),
        rank=rank,
        world_size=nodes,
        reading=str(folder / "reading.jsonl"),
        problem=str(folder / "problem.json"),
        function=function,
    )


def _parent_of(value: dict[str, Any] | None) -> ParentCheckpoint | None:
    if value is None:
        return None
    return msgspec.convert({**value, "path": Path(value["path"])}, ParentCheckpoint)


def _saved_of(value: dict[str, Any] | None) -> Saved | None:
    if value is None:
        return None
    return Saved(value["position"], Path(value["path"]), value["state"])
