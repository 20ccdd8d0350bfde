"""Follow a training program, or several that train together, from its start to its metrics."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainflow.errors import TaskError
from trainflow.operators.bash import failure_message
from trainflow.operators.process_group import ProcessGroup
from trainflow.operators.training.rank_connection import RankConnection, RunRank, files_in
from trainflow.operators.training.rank_protocol import (
    RankFunction,
    check_readings,
    failure_of,
    first_to_fail,
)
from trainflow.operators.training.ranks import (
    NEWS_SECONDS,
    RankGroups,
    RankProcess,
    free_port,
    rank_environment,
    spread_environment,
)
from trainflow.operators.training.remote_rank import RemoteRank
from trainflow.operators.training.save_points import StoredSaves
from trainflow.operators.training.saves_folder import SavesFolder
from trainflow.operators.training.training_context import TrainContext, checked_metrics
from trainflow.operators.training.training_task import TASK_FILE, ProgressLine, environment_of, task_of
from trainflow.task_signals import TaskPreempted

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance


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
        links: Sequence[RankConnection] = (),
    ) -> None:
        """`links`: to the other ranks, where those are on hosts of their own."""
        self._links = links
        self._argv = [str(part) for part in argv]
        self._ti = ti
        self._told = training._report
        folders = [folder if rank == 0 else folder / f"rank_{rank}" for rank in range(nodes)]
        self._folders = folders
        self._tasks = [task_of(training, chain, each, ti, rank, nodes, function) for rank, each in enumerate(folders)]
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
                    gone=ended.gone if isinstance(ended, RemoteRank) else None,
                    failed_here=ended.failed_here if isinstance(ended, RemoteRank) else None,
                    out_of_memory=ended.out_of_memory,
                )
            for rank, each in enumerate(group.groups):
                if isinstance(each, RemoteRank):
                    each.hand_over(Path(self._task.output), f"rank {rank} of {len(self._tasks)}")
        elif code != 0:
            what = f"the training command {self._argv[0]!r}"
            raise TaskError(failure_message(what, code, group.tail, group.out_of_memory))
        return self._metrics()

    def _groups(self, extra_environment: Mapping[str, str]) -> ProcessGroup | RankGroups:
        if len(self._tasks) == 1:
            log = self._ti.log
            return self._program(0, extra_environment, lambda line: log.info("%s", line), self._look_after)
        nodes, host = len(self._tasks), self._links[0].own_host if self._links else "127.0.0.1"
        port = free_port(host)
        if self._links:
            environments = [spread_environment(rank, nodes, host, port) for rank in range(nodes)]
        else:
            environments = [rank_environment(rank, nodes, port) for rank in range(nodes)]
        given = [{**extra_environment, **each} for each in environments]
        ranks = [
            self._remote(rank, given[rank], self._links[rank - 1])
            if rank and self._links
            else self._program(rank, given[rank], self._print_of(rank))
            for rank in range(nodes)
        ]
        return RankGroups(ranks, self._look_after, news_seconds=NEWS_SECONDS if self._links else 0.0)

    def _print_of(self, rank: int) -> Callable[[str], None]:
        return partial(self._ti.log.info, "rank %d: %s", rank)

    def _remote(self, rank: int, environment: Mapping[str, str], link: RankConnection) -> RankProcess:
        task = self._tasks[rank]
        places = {"parent": task.parent, "saved": task.saved}
        run = RunRank(
            task,
            [] if task.function is not None else self._argv,
            {**_trace(), **environment},
            {name: files_in(Path(place["path"])) for name, place in places.items() if place is not None},
        )
        return RemoteRank(
            link,
            run,
            self._folders[rank] / "written",
            on_line=self._print_of(rank),
            on_stop_asked=partial(os.kill, os.getpid(), signal.SIGTERM),
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
            env={**os.environ, **environment_of(task, self._folders[rank]), **environment},
            on_line=on_line,
            on_idle=on_idle,
        )

    def stop(self) -> None:
        """End it and all it started. Safe to call at any time."""
        if self._group is not None:
            self._group.stop()

    def _look_after(self) -> None:
        if self._ti.terminated and self._group is not None:
            self._group.terminate()  # it was told before this group was there
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
            metrics = {name: math.nan if value is None else value for name, value in said.metrics.items()}
            self._told(said.done, said.total, said.unit, metrics or None)

    def _metrics(self) -> dict[str, float]:
        path = Path(self._task.metrics)
        if not path.is_file():
            return {}
        try:
            written = json.loads(path.read_text())
        except ValueError as error:
            raise TaskError(f"the training command wrote metrics that are no JSON: {error}") from None
        return checked_metrics(written, "the training command")


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


def _trace() -> dict[str, str]:
    """What a program on another host is told of the trace that its attempt belongs to."""
    return {name: os.environ[name] for name in ("TRACEPARENT",) if name in os.environ}
