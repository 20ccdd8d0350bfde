"""Run one attempt that a scheduler elsewhere handed over, from its workload to the report of its end."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
from msgspec.structs import replace

from trainflow.clock import Clock
from trainflow.engine.startup import stopping_on_signals
from trainflow.errors import EngineError, InputError
from trainflow.execution.code_bundles import code_of
from trainflow.execution.http_api_client import HttpApiClient, client_of
from trainflow.executors.handed_attempt import WorkloadEnd
from trainflow.executors.worker import Worker, worker_home
from trainflow.messages.workload import RANK_HOST_VARIABLE, RANK_VARIABLE, RAY_VARIABLE, ExecuteTask, RayPlacement
from trainflow.settings.load import load_settings
from trainflow.settings.project import HOME_VARIABLE, project_at

_TURN_SECONDS = 5.0
#: a stop is looked for so often where nothing can wake what waits, in seconds
_LOOK_SECONDS = 0.5
#: signals to stop that come within this are one
_TOGETHER_SECONDS = 1.0


def read_workload(text: str | bytes) -> ExecuteTask:
    """A workload as an executor wrote it. Raises InputError for what is none; nothing of it is shown: it holds a
    secret."""
    try:
        workload = msgspec.json.decode(text, type=ExecuteTask)
    except msgspec.ValidationError as error:
        raise InputError(
            f"the workload is none that this version of trainflow understands ({error}): install the version of the "
            "scheduler on this worker"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InputError("the workload is no JSON of a task to execute") from None
    if not workload.api_url or not workload.claim_secret:
        raise InputError("the workload does not say where the API server is, or with what its attempt is claimed")
    return workload


def rank_here(workload: ExecuteTask, environ: Mapping[str, str]) -> int | None:
    """Which rank of the workload has this host for itself; None: all that it has are processes of this one. Raises
    InputError."""
    said = environ.get(RANK_VARIABLE)
    if said is None or workload.nodes == 1:
        return None
    if not (said.isascii() and said.isdigit() and int(said) < workload.nodes):
        raise InputError(f"{RANK_VARIABLE}={said}: the ranks of the workload are 0 to {workload.nodes - 1}")
    return int(said)


def execute_workload(
    workload: ExecuteTask, *, project: Path | None, clock: Clock, environ: Mapping[str, str] = os.environ
) -> WorkloadEnd:
    """Run it to its end, or until SIGTERM: then it saves how far it is, and is preempted. `environ` says which of its
    ranks is here, where each of them has a host of its own.

    Raises InputError and EngineError when it cannot be tried here; its attempt is not claimed then.
    """
    rank = rank_here(workload, environ)
    if rank is None and workload.nodes > 1 and RAY_VARIABLE in environ:
        return _place_on_ray(workload, project, environ[RAY_VARIABLE])
    root = code_of(workload, project, Path.cwd())
    with worker_home() as home:
        supervisor = _Supervisor(workload, root, home, clock)
        with stopping_on_signals(supervisor.stop):
            if rank:
                return supervisor.run_rank(rank)
            if rank is None:
                return supervisor.run_attempt()
            return supervisor.run_first_rank(environ.get(RANK_HOST_VARIABLE))


def _place_on_ray(workload: ExecuteTask, project: Path | None, placement: str) -> WorkloadEnd:
    """Have the ranks run on the nodes of the Ray cluster whose job this is."""
    from trainflow.execution.ranks.ray_placement import RayRanks

    stops: list[int] = []
    arguments = [] if project is None else ["--project", str(project)]
    ranks = RayRanks(
        workload.nodes,
        msgspec.json.decode(placement, type=RayPlacement),
        msgspec.json.encode(workload).decode(),
        arguments,
        stopping=lambda: bool(stops),
    )
    with stopping_on_signals(lambda number, _frame: stops.append(number)):
        code = ranks.run()
    return WorkloadEnd(workload.key, code == 0, f"its first rank has ended with exit code {code}")


class _Supervisor:
    """Runs one workload. `home`: a folder of its own."""

    def __init__(self, workload: ExecuteTask, root: Path, home: Path, clock: Clock) -> None:
        self._workload, self._root, self._home, self._clock = workload, root, home, clock
        self._project = project_at(root)
        self._settings = load_settings(self._project)
        #: by the monotonic clock: when it was first told to stop
        self._stopped_at: float | None = None
        self._worker: Worker | None = None

    def stop(self, _number: int, _frame: object) -> None:
        """Have it stop; told again, at once. What ends a whole job signals each of its processes, and the one above
        this one hands it on as well: signals that come together are one."""
        now = self._clock.monotonic()
        again = self._stopped_at is not None and now - self._stopped_at > _TOGETHER_SECONDS
        self._stopped_at = now if self._stopped_at is None else self._stopped_at
        if self._worker is not None:
            if again:
                self._worker.hurry()
            self._worker.reactor.wake()

    def run_attempt(self, rank_sockets: Sequence[socket.socket] = ()) -> WorkloadEnd:
        """Run the attempt. `rank_sockets`: connections to the other ranks; closed here."""
        ends: list[WorkloadEnd] = []
        worker = self._worker = Worker(self._home, self._clock, ends.append, forks=False)
        descriptors = [connection.fileno() for connection in rank_sockets]
        try:
            worker.run(replace(self._workload, rank_sockets=descriptors), self._root)
            for connection in rank_sockets:
                connection.close()
            while worker.busy and self._stopped_at is None:
                worker.turn(_TURN_SECONDS)
        finally:
            worker.end(timedelta(seconds=self._settings.engine.stop_grace_seconds))
        if not ends:
            raise EngineError(f"attempt {self._workload.key.attempt_id} was stopped before it began")
        return ends[0]

    def run_first_rank(self, host: str | None) -> WorkloadEnd:
        """Wait for the other ranks, and run the attempt. `host`: the address of this one."""
        from trainflow.execution.ranks.rendezvous import RankRendezvous, RanksNotWanted, own_address

        client, key = self._client(), self._workload.key
        try:
            gathering = RankRendezvous(
                key,
                self._workload.nodes,
                self._workload.claim_secret,
                host=host or own_address(self._workload.api_url),
                lost_after_seconds=self._settings.workers.lost_after_seconds,
                clock=self._clock,
            )
        except OSError as error:
            raise EngineError(f"the other ranks cannot be waited for at {host}: {error}") from error
        with contextlib.closing(gathering):
            try:
                ranks = gathering.gather(client, self._check_stop)
            except RanksNotWanted as error:
                return WorkloadEnd(key, True, f"not run here: {error} (says {self._workload.api_url})")
            return self.run_attempt(ranks)

    def run_rank(self, rank: int) -> WorkloadEnd:
        """Run a rank other than the first."""
        from trainflow.execution.ranks.agent import RankAgent

        os.environ[HOME_VARIABLE] = str(self._home)
        agent = RankAgent(
            self._workload,
            rank,
            self._root,
            self._home / "rank",
            self._client(),
            lost_after_seconds=self._settings.workers.lost_after_seconds,
            stopping=lambda: self._stopped_at is not None,
        )
        ended = agent.run()
        return WorkloadEnd(self._workload.key, *ended)

    def _client(self) -> HttpApiClient:
        return client_of(self._workload, self._project, self._settings, clock=self._clock, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(left, _LOOK_SECONDS))

    def _check_stop(self) -> None:
        if self._stopped_at is not None:
            raise EngineError(f"attempt {self._workload.key.attempt_id} was stopped before it began")
