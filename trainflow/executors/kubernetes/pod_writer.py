"""Makes and deletes pods, in a thread of its own: a cluster that does not answer keeps nothing waiting but pods."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from trainflow.clock import Clock
from trainflow.errors import EngineError, describe
from trainflow.executors.kubernetes.cluster import Cluster, ClusterAway, ClusterRefusal
from trainflow.executors.kubernetes.pod import Object, PodPlace, secret_of
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.transaction_retries import is_own_fault

log = logging.getLogger(__name__)

#: how long pods that are being made are waited for when the engine ends
_LAST_SECONDS = 5.0
#: a delete that could not be sent is sent again so often
_DELETES_AT_MOST = 3


class PodWriterEvents(Protocol):
    """What is called, by the thread that writes."""

    def on_made(self, workload: ExecuteTask, rank: int, place: PodPlace) -> None:
        """Take note of the pod of a rank that is there now, made by this or by another engine."""

    def on_put_back(self, workload: ExecuteTask, reason: str) -> None:
        """Take back what the cluster does not take now."""

    def on_refused(self, workload: ExecuteTask, reason: str) -> None:
        """End what the cluster will never take."""


class _Making(NamedTuple):
    workload: ExecuteTask
    rank: int
    pod: Object
    secret: bool


class _Deleting(NamedTuple):
    place: PodPlace
    grace: int | None
    times: int = 0


class PodWriter:
    """One for a cluster."""

    def __init__(self, connect: Callable[[], Cluster], events: PodWriterEvents, clock: Clock) -> None:
        """`connect` is called by the thread, until it gives a cluster."""
        self._connect, self._events, self._clock = connect, events, clock
        self._cluster: Cluster | None = None
        self._work: SimpleQueue[_Making | _Deleting | None] = SimpleQueue()
        #: nothing is made before: the cluster wants to be left alone, or has refused just now
        self._paused_until = 0.0
        self._thread = threading.Thread(target=self._run, name="kubernetes", daemon=True)
        self._thread.start()

    def make(self, workload: ExecuteTask, pod: Object, *, secret: bool, rank: int = 0) -> None:
        """Make a pod, and its Secret."""
        self._work.put(_Making(workload, rank, pod, secret))

    def delete(self, place: PodPlace, grace: int | None = None) -> None:
        """Delete a pod. `grace`: seconds; None: its own."""
        self._work.put(_Deleting(place, grace))

    def end(self) -> None:
        """Do what is left, for a while."""
        self._work.put(None)
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if isinstance(work, _Making):
                self._make(work)
            else:
                self._delete(work)
        if self._cluster is not None:
            self._cluster.close()

    def _connected(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._connect()
        return self._cluster

    def _make(self, work: _Making) -> None:
        left = self._paused_until - self._clock.monotonic()
        if left > 0:
            reason = f"the cluster wants to be asked again in {left:.0f} s"
            self._events.on_put_back(work.workload, reason)
            return
        try:
            made = self._made(self._connected(), work)
        except ClusterRefusal as refusal:
            # a namespace that is not there is made by people
            if refusal.code == 404:
                self._events.on_put_back(work.workload, str(refusal))
            else:
                self._events.on_refused(work.workload, str(refusal))
        except ClusterAway as away:
            self._paused_until = self._clock.monotonic() + away.retry_after
            self._events.on_put_back(work.workload, str(away))
        except Exception as error:
            if is_own_fault(error):
                log.exception("a pod cannot be made")
            said = str(error) if isinstance(error, EngineError) else describe(error)
            self._events.on_put_back(work.workload, said)
        else:
            metadata = made["metadata"]
            place = PodPlace(metadata["namespace"], metadata["name"], metadata["uid"])
            self._events.on_made(work.workload, work.rank, place)

    @staticmethod
    def _made(cluster: Cluster, work: _Making) -> dict[str, Any]:
        metadata = work.pod["metadata"]
        metadata["namespace"] = metadata["namespace"] or cluster.namespace
        try:
            made = cluster.create("pods", work.pod)
        except ClusterRefusal as refusal:
            if refusal.code != 409:
                raise
            # the name is that of the attempt: it is this one's
            made = cluster.get_pod(metadata["namespace"], metadata["name"])
        if work.secret:
            try:
                cluster.create("secrets", secret_of(work.workload, made))
            except ClusterRefusal as refusal:
                if refusal.code != 409:
                    raise
        return made

    def _delete(self, work: _Deleting) -> None:
        namespace, name, uid = work.place
        try:
            self._connected().delete_pod(namespace, name, uid, work.grace)
        except ClusterRefusal:
            return
        except Exception as error:
            if is_own_fault(error):
                log.exception("pod %s cannot be deleted", name)
            # what is left is found by the next look at all pods
            if work.times < _DELETES_AT_MOST:
                self._work.put(work._replace(times=work.times + 1))
