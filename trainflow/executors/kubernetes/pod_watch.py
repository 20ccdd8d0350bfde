"""Watches the pods of one namespace, in a thread of its own: a list, what happens after it, and a list again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from trainflow.clock import Clock
from trainflow.errors import EngineError, describe
from trainflow.executors.kubernetes.cluster import Cluster, ClusterAway, ClusterRefusal, ClusterSilent, Watched
from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.metadata.transaction_retries import is_own_fault

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 30.0
_EXPIRED = 410


class PodWatchEvents(Protocol):
    """What is called, by the thread that watches."""

    def on_listed(self, namespace: str, pods: list[dict[str, Any]]) -> None:
        """Take note of all pods there are."""

    def on_event(self, namespace: str, kind: str, pod: dict[str, Any]) -> None:
        """Take note of one that was `ADDED`, `MODIFIED` or `DELETED`."""


class _Stale(Exception):
    """What is known is too old to go on from."""


class PodWatch:
    """One for a namespace; None: the one of the configuration."""

    def __init__(
        self,
        connect: Callable[[], Cluster],
        events: PodWatchEvents,
        options: KubernetesOptions,
        clock: Clock,
        *,
        namespace: str | None,
        labels: str,
    ) -> None:
        self._connect, self._events, self._options, self._clock = connect, events, options, clock
        self._namespace, self._labels = namespace, labels
        self._ended = threading.Event()
        #: what is known is not enough: all pods are to be looked at
        self._again = threading.Event()
        self._watched: Watched | None = None
        self._lock = threading.Lock()
        self._told = False
        self._thread = threading.Thread(target=self._run, name="kubernetes watch", daemon=True)
        self._thread.start()

    def list_again(self) -> None:
        """Have all pods looked at, soon."""
        self._again.set()
        self._cut()

    def end(self) -> None:
        """End it."""
        self._ended.set()
        self._cut()
        self._thread.join(1.0)

    def _cut(self) -> None:
        with self._lock:
            if self._watched is not None:
                self._watched.cut()

    def _run(self) -> None:
        cluster: Cluster | None = None
        pause = _FIRST_PAUSE_SECONDS
        while not self._ended.is_set():
            try:
                cluster = cluster or self._connect()
                self._again.clear()
                version = self._list(cluster)
                pause = _FIRST_PAUSE_SECONDS
                self._watch(cluster, version)
            except _Stale:
                continue
            except Exception as error:
                if self._again.is_set() or (isinstance(error, ClusterRefusal) and error.code == _EXPIRED):
                    continue
                self._tell(error)
                wait = error.retry_after if isinstance(error, ClusterAway) else 0.0
                self._ended.wait(max(pause, wait))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        if cluster is not None:
            cluster.close()

    def _tell(self, error: Exception) -> None:
        if not self._told and not self._ended.is_set():
            self._told = True
            said = str(error) if isinstance(error, EngineError) else describe(error)
            own = error if is_own_fault(error) else None
            log.warning("pods cannot be watched: %s; attempts go on, and it is tried again", said, exc_info=own)

    def _list(self, cluster: Cluster) -> str:
        namespace = self._namespace or cluster.namespace
        version, pods = cluster.list_pods(namespace, self._labels)
        self._events.on_listed(namespace, pods)
        if self._told:
            self._told = False
            log.info("pods of namespace %s are watched again", namespace)
        return version

    def _watch(self, cluster: Cluster, version: str) -> None:
        """Follow what happens until it is time for a look at all pods. A watch that ends by itself, or is cut off, goes
        on where it was."""
        namespace = self._namespace or cluster.namespace
        until = self._clock.monotonic() + self._options.reconcile_seconds
        while not self._ended.is_set() and (left := until - self._clock.monotonic()) > 0:
            # a silent one ends in time for the next look
            idle = min(self._options.idle_seconds, left + 1)
            try:
                with cluster.watch_pods(namespace, self._labels, version, idle=idle, lasts=left) as watched:
                    for event in self._events_of(watched):
                        version = self._take(namespace, event) or version
                        if self._clock.monotonic() >= until:
                            return
            except ClusterSilent as silent:
                log.debug("%s", silent)
            if self._again.is_set():
                return

    def _events_of(self, watched: Watched) -> Iterator[dict[str, Any]]:
        """The events of a watch that can be cut off meanwhile."""
        with self._lock:
            self._watched = watched
        try:
            if not (self._ended.is_set() or self._again.is_set()):
                yield from watched
        finally:
            with self._lock:
                self._watched = None

    def _take(self, namespace: str, event: dict[str, Any]) -> str | None:
        """Pass on an event; the version to go on from. Raises _Stale."""
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == _EXPIRED:
                raise _Stale
            raise ClusterAway(f"the watch of pods ends: {item.get('message')}")
        if kind != "BOOKMARK":
            self._events.on_event(namespace, kind, item)
        found = (item.get("metadata") or {}).get("resourceVersion")
        return str(found) if found else None
