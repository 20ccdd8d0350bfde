"""Train with a program instead of a function: how it is told what to do, and how it answers.

The variable TRAINFLOW_TASK names a JSON file:

    {"version": 1, "dag_id", "run_id", "task_id", "try_number", "attempt_id",
     "chain":    "pipeline/stage/branch",
     "project":  folder of the project (relative sample paths belong to it; the program runs in it),
     "split":    start, end, partitions with their files, holes (see `trainflow.samples.splits.split.Split`),
     "parent":   {"id", "sequence", "watermark", "path": local folder with its files, "metrics"} or null,
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

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.clock import SystemClock
from trainflow.errors import InputError, TaskError
from trainflow.operators.bash import failure_message
from trainflow.operators.process_group import ProcessGroup
from trainflow.operators.training.rank_words import (
    RankFunction,
    check_readings,
    failure_of,
    first_to_fail,
    note_reading,
)
from trainflow.operators.training.ranks import RankGroups, free_port, rank_environment
from trainflow.operators.training.save_points import OtherRankSaves, Saved, SavePoints, StoredSaves
from trainflow.operators.training.saves_folder import FolderSaves, SavesFolder, SignalStopRequest
from trainflow.operators.training.training_context import ParentCheckpoint, TrainContext, checked_metrics
from trainflow.task_signals import TaskPreempted

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


class TrainingCommand:
    """One run of a training program, or of `nodes` of them. `folder` is for their task files and answers; made here.
    `function`: each rank calls it, and `argv` runs `trainflow.execution.rank_main`."""

    def __init__(
        self,
        argv: Sequence[str],
        training: TrainContext,
        saves: StoredSaves,
        chain: str,
        folder: Path,
        ti: TaskInstance,
        *,
        nodes: int = 1,
        function: RankFunction | None = None,
    ) -> None:
        self._argv = [str(part) for part in argv]
        self._ti = ti
        folders = [folder if rank == 0 else folder / f"rank_{rank}" for rank in range(nodes)]
        self._folders = folders
        self._tasks = [_task_of(training, chain, each, ti, rank, nodes, function) for rank, each in enumerate(folders)]
        self._task = self._tasks[0]
        self._progress = ProgressFile(Path(self._task.progress))
        self._saves = SavesFolder(Path(self._task.saves), saves, ti.log)
        self._group: ProcessGroup | RankGroups | None = None

    def run(self, extra_environment: Mapping[str, str]) -> dict[str, float]:
        """Run it to the end; its metrics.

        Raises TaskError when it fails, with the end of its output, TaskPartLost when one of several was ended from
        outside, TaskPreempted when the task was told to stop and it ended within the grace.
        """
        for folder, task in zip(self._folders, self._tasks, strict=True):
            Path(task.saves).mkdir(parents=True, exist_ok=True)
            (folder / TASK_FILE).write_bytes(msgspec.json.encode(task))
        group = self._group = self._groups(extra_environment)
        self._ti.hold_stop(group.terminate)
        try:
            code = group.run()
        except OSError as error:
            raise TaskError(f"the training command {self._argv[0]!r} cannot be started: {error.strerror}") from error
        if self._ti.terminated:
            raise TaskPreempted(f"was told to stop; the training command {self._argv[0]!r} did")
        self._ti.release_stop()
        if isinstance(group, RankGroups):
            if group.failed is not None:
                rank = first_to_fail(group.failed, [task.problem for task in self._tasks])
                ended = group.groups[rank]
                raise failure_of(
                    rank,
                    code if ended.code is None else ended.code,
                    len(self._tasks),
                    self._tasks[rank].problem,
                    ended.tail,
                    retries_mistakes=self._ti.has_progressed or self._ti.settings.executor.retry_programming_errors,
                )
        elif code != 0:
            raise TaskError(failure_message(f"the training command {self._argv[0]!r}", code, group.tail))
        return self._metrics()

    def _groups(self, extra_environment: Mapping[str, str]) -> ProcessGroup | RankGroups:
        if len(self._tasks) == 1:
            log = self._ti.log
            return self._program(0, extra_environment, lambda line: log.info("%s", line), self._look_after)
        nodes, port = len(self._tasks), free_port()
        log = self._ti.log
        return RankGroups(
            [
                self._program(
                    rank,
                    {**extra_environment, **rank_environment(rank, nodes, port)},
                    partial(log.info, "rank %d: %s", rank),
                )
                for rank in range(nodes)
            ],
            self._look_after,
        )

    def _program(
        self,
        rank: int,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        on_idle: Callable[[], None] = lambda: None,
    ) -> ProcessGroup:
        task = self._tasks[rank]
        return ProcessGroup(
            self._argv,
            cwd=task.project,
            env={**os.environ, **_environment(task, self._folders[rank]), **environment},
            on_line=on_line,
            on_idle=on_idle,
        )

    def stop(self) -> None:
        """End it and all it started. Safe to call at any time."""
        if self._group is not None:
            self._group.stop()

    def _look_after(self) -> None:
        if self._ti.terminated and self._group is not None:
            self._group.terminate()  # it was told before there was anybody to tell
        if len(self._tasks) > 1:
            check_readings([Path(task.reading) for task in self._tasks])
        self._report()
        self._saves.collect()

    def _report(self) -> None:
        for line in self._progress.new_lines():
            try:
                said = msgspec.json.decode(line, type=ProgressLine)
            except msgspec.MsgspecError as error:
                self._ti.log.warning("a line of progress cannot be read (%s): %s", error, line[:200])
                continue
            self._ti.report_progress(said.done, said.total, said.unit, said.metrics or None)

    def _metrics(self) -> dict[str, float]:
        path = Path(self._task.metrics)
        if not path.is_file():
            return {}
        try:
            written = json.loads(path.read_text())
        except ValueError as error:
            raise TaskError(f"the training command wrote metrics that are no JSON: {error}") from None
        return checked_metrics(written, "the training command")


class ProgressLine(msgspec.Struct, frozen=True):
    """One line of the progress file."""

    done: float
    total: float | None = None
    unit: str = "rows"
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


class ProgressFile:
    """A file that another process appends lines to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new_lines(self) -> list[bytes]:
        """The complete lines since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [line for line in whole.splitlines() if line.strip()]


def _environment(task: TrainingTask, folder: Path) -> dict[str, str]:
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
        line = msgspec.json.encode(ProgressLine(done, total, unit, metrics or {}))
        with self._path.open("ab") as file:
            file.write(line + b"\n")


def _task_of(
    training: TrainContext,
    chain: str,
    folder: Path,
    ti: TaskInstance,
    rank: int,
    nodes: int,
    function: RankFunction | None,
) -> TrainingTask:
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
