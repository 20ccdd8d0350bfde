"""A rank other than the first: finds the first one, does what it says, and ends with it."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from trainflow.bootstrap import interpreter
from trainflow.errors import EngineError, ProtocolError, describe
from trainflow.execution.http_api_client import HttpApiClient
from trainflow.execution.ranks.rendezvous import HANDSHAKE_SECONDS, HandshakeFailed, RankKey, introduce, keep_alive
from trainflow.messages.execution_api import Failed, MeetRanks, RanksMeet, Refused
from trainflow.messages.workload import ExecuteTask
from trainflow.operators.process_group import ProcessGroup
from trainflow.operators.train import RANK_MODULE
from trainflow.operators.training.rank_connection import (
    Begin,
    Begun,
    FileBegins,
    FolderEnds,
    RankConnection,
    RankEnded,
    RankLine,
    RankReads,
    RunRank,
    StopAsked,
    WantFolder,
    files_in,
    is_same_folder,
)
from trainflow.operators.training.rank_protocol import RankProblem
from trainflow.operators.training.training_task import TASK_FILE, TrainingTask, environment_of
from trainflow.settings.environment import worker_environment

log = logging.getLogger(__name__)

#: between two questions where the first rank is
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_LOOK_SECONDS = 0.5
#: how long the program may clean up when it is ended: it has nothing to save
_GRACE_SECONDS = 1.0


class RankEnd(NamedTuple):
    """What became of a rank. `done`: the first rank knows, or the attempt is not waited for."""

    done: bool
    message: str


class RankAgent:
    """One rank of a workload. `folder`: its own; `root`: the project."""

    def __init__(
        self,
        workload: ExecuteTask,
        rank: int,
        root: Path,
        folder: Path,
        client: HttpApiClient,
        *,
        lost_after_seconds: float,
        stopping: Callable[[], bool],
    ) -> None:
        """`stopping`: whether the process was told to stop."""
        self._workload, self._rank, self._root, self._folder = workload, rank, root, folder
        self._client = client
        self._lost_after = lost_after_seconds
        self._stopping = stopping
        self._who = f"rank {rank} of {workload.nodes}"

    def run(self) -> RankEnd:
        """Wait for the first rank, and run until it says that this one is to end. Raises EngineError when the process
        was told to stop before, or the API server was away for too long."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._check_stop()
            answer = self._client.ask(MeetRanks(self._workload.key))
            if isinstance(answer, Refused):
                return RankEnd(True, f"{self._who} does not run here: {answer.reason}")
            if isinstance(answer, Failed):
                return RankEnd(False, f"{self._who} never began: {answer.message}")
            link = self._connect(answer.address) if isinstance(answer, RanksMeet) and answer.address else None
            if link is not None:
                log.info("%s has found the first one at %s", self._who, link.other_host)
                ended = self._serve(link)
                if ended is not None:
                    return ended
                pause = _FIRST_PAUSE_SECONDS
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _check_stop(self) -> None:
        if self._stopping():
            raise EngineError(f"{self._who} was stopped before it began")

    def _connect(self, address: str) -> RankConnection | None:
        host, _, port = address.rpartition(":")
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), HANDSHAKE_SECONDS)
        except OSError as error:
            log.info("the first rank cannot be reached at %s: %s", address, error)
            return None
        try:
            keep_alive(connection, self._lost_after)
            key = RankKey.of(self._workload.key, self._workload.claim_secret)
            introduce(connection, key, self._rank, self._workload.nodes)
        except (HandshakeFailed, OSError) as error:
            log.warning("what answers at %s is not the first rank: %s", address, error)
            connection.close()
            return None
        self._connection = connection
        return RankConnection(connection)

    def _serve(self, link: RankConnection) -> RankEnd | None:
        """Do what the first rank says; None: it went before it said anything."""
        try:
            while not select.select([self._connection], [], [], _LOOK_SECONDS)[0]:
                self._check_stop()
            if not isinstance(link.receive(), Begin):
                return None
            link.send(Begun(time.monotonic()))
            run = link.receive()
            if not isinstance(run, RunRank):
                return None
            return _RankTraining(self, link, run).run()
        except OSError:
            return None
        finally:
            link.cut()
            link.close()

    @property
    def folder(self) -> Path:
        """A folder of its own."""
        return self._folder

    @property
    def is_told_to_stop(self) -> bool:
        """Whether its host is wanted for something else."""
        return self._stopping()

    def told(self, run: RunRank, received: dict[str, Path]) -> tuple[TrainingTask, list[str]]:
        """The task as it is on this host, and the program."""
        task, folder = run.task, self._folder
        function = task.function
        here = replace(
            task,
            project=str(self._root),
            output=str(folder / "output"),
            parent=_placed(task.parent, received.get("parent")),
            saved=_placed(task.saved, received.get("saved")),
            metrics=str(folder / "metrics.json"),
            progress=str(folder / "progress.jsonl"),
            saves=str(folder / "saves"),
            reading=str(folder / "reading.jsonl"),
            problem=str(folder / "problem.json"),
            function=None if function is None else replace(function, version=self._workload.version),
        )
        return here, run.argv or interpreter(RANK_MODULE)

    def ended(self, code: int, *, delivered: bool) -> RankEnd:
        """What became of it."""
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        if delivered:
            return RankEnd(True, f"{self._who} has ended: {how}")
        return RankEnd(False, f"{self._who} has ended ({how}), and the first one is gone")


class _RankTraining:
    """One program, from the word of the first rank to its end. What is sent is sent by the thread that runs it."""

    def __init__(self, agent: RankAgent, link: RankConnection, run: RunRank) -> None:
        self._agent, self._link, self._run = agent, link, run
        self._group: ProcessGroup | None = None
        self._listener: threading.Thread | None = None
        #: the first rank has hung up: nothing is to go on here
        self._over, self._over_at = False, 0.0
        #: nothing more can be sent to it
        self._broken = False
        self._told_stop = False
        self._read = 0
        #: bytes that came when nothing was wanted any more
        self._forgotten = 0

    def run(self) -> RankEnd:
        """Run it; what became of it."""
        try:
            code, problem = self._program(), self._problem()
            if code == 0 and not self._over:
                self._send_output()
        except (OSError, ProtocolError) as error:
            problem = RankProblem(describe(error), traceback.format_exc(), type(error).__name__, at=time.monotonic())
            code = 1
        out_of_memory = self._group.out_of_memory if self._group is not None else ""
        self._say(RankEnded(code, problem, out_of_memory))
        self._link.hang_up()
        return self._agent.ended(code, delivered=self._is_heard() and not self._broken)

    def _is_heard(self) -> bool:
        """Wait until the first rank hangs up, which has heard all then. It may still be sending what is not wanted any
        more."""
        if self._listener is None:
            self._listener = threading.Thread(target=self._link.drain, args=(self._count,), daemon=True)
            self._listener.start()
        before = -1
        while self._listener.is_alive() and before != self._forgotten:
            before = self._forgotten
            self._listener.join(HANDSHAKE_SECONDS)
        return not self._listener.is_alive()

    def _count(self, received: int) -> None:
        self._forgotten += received

    def _program(self) -> int:
        self._agent.folder.mkdir()
        received = {name: self._folder_of(name) for name in self._run.folders}
        task, argv = self._agent.told(self._run, received)
        self._task = task
        for path in (Path(task.output), Path(task.saves)):
            path.mkdir(parents=True)
        folder = self._agent.folder
        (folder / TASK_FILE).write_bytes(msgspec.json.encode(task))
        group = self._group = ProcessGroup(
            argv,
            cwd=task.project,
            env={**worker_environment(os.environ), **environment_of(task, folder), **self._run.environment},
            on_line=lambda line: self._say(RankLine(line)),
            on_idle=self._look_after,
            grace_seconds=_GRACE_SECONDS,
        )
        self._listener = threading.Thread(target=self._listen, args=(group,), name="first rank", daemon=True)
        self._listener.start()
        return group.run()

    def _folder_of(self, name: str) -> Path:
        """A folder that the task reads: where the hosts share their files that very one, else a copy."""
        place: dict[str, Any] | None = getattr(self._run.task, name)
        assert place is not None
        if is_same_folder(Path(place["path"]), self._run.folders[name]):
            return Path(place["path"])
        copy = self._agent.folder / name
        copy.mkdir()
        self._link.send(WantFolder(name))
        while isinstance(message := self._link.receive(), FileBegins):
            self._link.receive_file(message, copy)
        if message != FolderEnds(name):
            raise ConnectionError("the first rank has hung up")
        return copy

    def _listen(self, group: ProcessGroup) -> None:
        """End the program when the first rank hangs up, or is gone: it has nothing more to say."""
        self._link.receive()
        self._over, self._over_at = True, time.monotonic()
        group.stop()

    def _look_after(self) -> None:
        if self._over and self._group is not None:
            # it may have been ended before it had begun
            ends = time.monotonic() - self._over_at >= _GRACE_SECONDS
            (self._group.stop if ends else self._group.terminate)()
        if self._agent.is_told_to_stop and not self._told_stop:
            self._told_stop = True
            self._say(StopAsked())
        self._say_readings()

    def _say_readings(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            with open(self._task.reading, "rb") as file:
                file.seek(self._read)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                self._read += len(whole)
                self._say(RankReads(whole.decode()))

    def _say(self, message: RankEnded | RankLine | RankReads | StopAsked) -> None:
        """Say something; where the first rank is gone that is found out by the thread that listens."""
        if not self._broken:
            try:
                self._link.send(message)
            except OSError:
                self._broken = True

    def _problem(self) -> RankProblem | None:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(Path(self._task.problem).read_bytes(), type=RankProblem)
        return None

    def _send_output(self) -> None:
        output = Path(self._task.output)
        for file in files_in(output):
            self._link.send_file("output", output, file.path)


def _placed(place: dict[str, Any] | None, folder: Path | None) -> dict[str, Any] | None:
    return None if place is None else {**place, "path": str(folder)}
