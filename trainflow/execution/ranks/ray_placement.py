"""The ranks of an attempt on the nodes of a Ray cluster: what its job runs there.

The job itself trains nothing. It asks for a placement group with a place for each rank, and has an actor in each start
`trainflow execute-workload` as that rank; how the ranks find each other is the same as everywhere. The only module that
imports Ray, and it does so in the job alone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from trainflow.bootstrap import interpreter
from trainflow.errors import EngineError
from trainflow.messages.workload import (
    RANK_HOST_VARIABLE,
    RANK_VARIABLE,
    RAY_VARIABLE,
    WORKLOAD_VARIABLE,
    RayPlacement,
)
from trainflow.operators.process_group import ProcessGroup

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
#: a rank whose node is gone is started again after so long: where the attempt has begun it is told so, and ends
_AGAIN_SECONDS = 1.0
#: how Ray says that a rank has not begun, and would not on another node either
_FOR_GOOD = ("RayTaskError", "RuntimeEnvSetupError", "ActorUnschedulableError", "TaskUnschedulableError")
#: how long the other ranks may take to end by themselves when the first one has
_LAST_SECONDS = 15.0


class RankActor:
    """Runs one rank, as a process of its node. An actor of Ray."""

    def __init__(self) -> None:
        self._group: ProcessGroup | None = None
        self._told = False

    def run(self, rank: int, workload: str, arguments: Sequence[str]) -> int:
        """Run it to its end; its exit code."""
        import ray

        host = ray.util.get_node_ip_address()
        of_rank = {RANK_VARIABLE: str(rank), RANK_HOST_VARIABLE: host, WORKLOAD_VARIABLE: workload}
        environ = {name: value for name, value in os.environ.items() if name != RAY_VARIABLE}
        group = self._group = ProcessGroup(
            interpreter("trainflow.cli.entry", "execute-workload", *arguments),
            cwd=os.getcwd(),
            env={**environ, **of_rank},
            on_line=log.info,
            on_idle=self._pass_on_stop,
        )
        return group.run()

    def stop(self) -> None:
        """Have it save how far it is, and end."""
        self._told = True
        self._pass_on_stop()

    def _pass_on_stop(self) -> None:
        if self._told and self._group is not None:
            self._group.terminate()


class RayRanks:
    """All ranks of one workload."""

    def __init__(
        self, nodes: int, placement: RayPlacement, workload: str, arguments: Sequence[str], stopping: Callable[[], bool]
    ) -> None:
        """`workload`: as JSON; `arguments`: of `execute-workload`; `stopping`: whether the job was told to stop."""
        self._nodes, self._placement = nodes, placement
        self._workload, self._arguments = workload, list(arguments)
        self._stopping = stopping
        self._actors: dict[int, Any] = {}
        #: what is waited for → rank
        self._runs: dict[Any, int] = {}
        self._told = False

    def run(self) -> int:
        """Run them to their end; the exit code of the first one. Raises EngineError where Ray cannot be used, or the
        job was told to stop before they had places."""
        try:
            import ray
            import ray.util.scheduling_strategies
        except ImportError as error:
            raise EngineError(f"its ranks are to be placed by Ray, which is not installed here: {error}") from error
        ray.init(ignore_reinit_error=True)
        self._ray = ray
        group = self._placed()
        for rank in range(self._nodes):
            self._start(rank, group)
        try:
            return self._until_first_ends(group)
        finally:
            self._end_others()
            ray.util.remove_placement_group(group)

    def _placed(self) -> Any:
        """A placement group, once there is a place for each rank."""
        bundles = [dict(self._placement.bundle) for _ in range(self._nodes)]
        group = self._ray.util.placement_group(bundles, strategy=self._placement.strategy)
        ready = group.ready()
        log.info("waits for %d places (%s) of %s", self._nodes, self._placement.strategy, self._placement.bundle)
        while not self._ray.wait([ready], timeout=_LOOK_SECONDS)[0]:
            if self._stopping():
                self._ray.util.remove_placement_group(group)
                raise EngineError("its ranks had no places when it was told to stop")
        return group

    def _start(self, rank: int, group: Any) -> None:
        bundle = dict(self._placement.bundle)
        strategy = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            placement_group=group, placement_group_bundle_index=rank
        )
        actor = (
            self._ray.remote(RankActor)
            .options(
                num_cpus=bundle.pop("CPU", 0),
                num_gpus=bundle.pop("GPU", 0),
                memory=bundle.pop("memory", None),
                resources=bundle or None,
                max_concurrency=2,  # it is told to stop while it runs
                scheduling_strategy=strategy,
            )
            .remote()
        )
        self._actors[rank] = actor
        run = actor.run.remote(rank, self._workload, self._arguments)
        self._runs[run] = rank

    def _until_first_ends(self, group: Any) -> int:
        while True:
            if self._stopping() and not self._told:
                self._told = True
                self._actors[0].stop.remote()
            ended, _ = self._ray.wait(list(self._runs), timeout=_LOOK_SECONDS)
            for run in ended:
                rank = self._runs.pop(run)
                code = self._code_of(run, rank)
                if rank == 0:
                    return 1 if code is None else code
                if code is None and not self._told:
                    threading.Event().wait(_AGAIN_SECONDS)
                    self._start(rank, group)
                elif code:
                    raise EngineError(f"rank {rank} of {self._nodes} has ended with exit code {code}: see its log")

    def _code_of(self, run: Any, rank: int) -> int | None:
        """The exit code of a rank that has ended; None: its actor or its node is gone. Raises EngineError for one that
        could not begin, and would not the next time."""
        try:
            return int(self._ray.get(run))
        except self._ray.exceptions.RayError as error:
            said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            kinds = [getattr(self._ray.exceptions, name, None) for name in _FOR_GOOD]
            if isinstance(error, tuple(kind for kind in kinds if kind)) or getattr(error, "actor_init_failed", False):
                # the last line of a traceback says what it was
                raise EngineError(f"rank {rank} of {self._nodes} cannot run: {said[-1]}") from error
            log.warning("rank %d of %d is gone: %s", rank, self._nodes, said[0])
            return None

    def _end_others(self) -> None:
        """Let the others end by themselves, which they do with the first one; then end them."""
        end = time.monotonic() + _LAST_SECONDS
        while self._runs and (left := end - time.monotonic()) > 0:
            ended, _ = self._ray.wait(list(self._runs), timeout=left)
            for run in ended:
                del self._runs[run]
        for actor in self._actors.values():
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)
