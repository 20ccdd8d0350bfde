"""The executor of a Kubernetes cluster."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Self

from trainflow.errors import EngineError, InputError
from trainflow.executors.executor import Executor, ExecutorHost, InFlightAttempt
from trainflow.executors.kubernetes.cluster import Cluster
from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.executors.kubernetes.pod import OWNER, Object, PodPlace, key_of, owner_of, pod_of
from trainflow.executors.kubernetes.pod_attempt import AttemptVerdict, PodAttempt, RankPod, rank_cause
from trainflow.executors.kubernetes.pod_outcome import PodSummary, Step, summary_of
from trainflow.executors.kubernetes.pod_watch import PodWatch
from trainflow.executors.kubernetes.pod_writer import PodWriter
from trainflow.executors.plugins import read_options
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.settings.executors import ExecutorSettingsError
from trainflow.settings.pod_template import read_template

#: seconds after its end that the pod of an attempt is kept of which nothing is known here
_KEPT_SECONDS = 3600.0
#: an attempt whose pod shows nothing new is looked at again so often, in seconds
_LOOK_SECONDS = 1.0
_TOLD_TO_STOP = "it was told to stop"


class KubernetesExecutor(Executor):
    """`type = "kubernetes"`."""

    remote: ClassVar[bool] = True
    tells_later: ClassVar[bool] = True

    def __init__(self, options: KubernetesOptions, name: str = "kubernetes") -> None:
        self._options, self._name = options, name
        self._attempts: dict[AttemptKey, PodAttempt] = {}
        self._writer: PodWriter | None = None
        self._watches: list[PodWatch] = []
        self._template: Mapping[str, Any] = {}
        self._namespace = options.namespace
        #: pods that ended, and whose attempt is not known to be over: since when
        self._leftovers: dict[PodPlace, float] = {}

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        read = read_options(name, options, KubernetesOptions)
        if read.namespaces and read.namespace is None:
            said = f"executors.{name}.namespace is missing: it is the one of tasks that name none"
            raise ExecutorSettingsError(said, executor=name, key="namespace")
        if importlib.util.find_spec("lightkube") is None:
            raise EngineError(f"executors.{name}: lightkube is not installed here: pip install 'trainflow[kubernetes]'")
        return cls(read, name)

    # -- contract --------------------------------------------------------------------------------------------------

    def start(self, host: ExecutorHost) -> None:
        self._host = host
        options, clock, root = self._options, host.clock, host.project.root
        if options.pod_template is not None:
            try:
                self._template = read_template(root / options.pod_template, options.pod_template)
            except InputError as error:
                raise EngineError(str(error)) from error

        def connect() -> Cluster:
            cluster = Cluster(options, clock, root)
            self._namespace = cluster.namespace
            return cluster

        if self._writer is not None:
            return
        self._writer = PodWriter(connect, self, clock)
        labels = f"{OWNER}={owner_of(host.settings.api.address, self._name)}"
        for namespace in (options.namespace, *options.namespaces):
            self._watches.append(PodWatch(connect, self, options, clock, namespace=namespace, labels=labels))

    def queue_workload(self, workload: ExecuteTask) -> None:
        self._attempts.setdefault(workload.key, PodAttempt(workload, self._now))
        self.deliver(workload)

    def deliver(self, workload: ExecuteTask) -> None:
        """Have its pods made, one for each rank. A second one of its name is refused by the cluster."""
        self._make(workload, range(workload.nodes))

    def _make(self, workload: ExecuteTask, ranks: Iterable[int]) -> None:
        assert self._writer is not None
        try:
            pods = {rank: self._pod(workload, rank) for rank in ranks}
        except InputError as error:
            self._end(workload.key, ProcessExit(reason=f"its pod cannot be made: {error}", refused=True))
            return
        for rank, pod in pods.items():
            self._writer.make(workload, pod, secret=self._options.secret, rank=rank)

    def _pod(self, workload: ExecuteTask, rank: int) -> Object:
        """The pod of a rank of an attempt. Raises InputError for a template that cannot be used (any more)."""
        config, root = workload.executor_config, self._host.project.root
        templates = [self._template]
        if path := config.get("pod_template"):
            templates.append(read_template(root / path, path))
        pod = pod_of(
            workload,
            self._options,
            # with no namespace configured the writer's cluster says which, before anything is sent
            config.get("namespace") or self._namespace or "",
            rank=rank,
            templates=templates,
            engine=_label(os.uname().nodename),
            stop_grace_seconds=self._host.settings.engine.stop_grace_seconds,
        )
        if not all(container.get("image") for container in pod["spec"]["containers"]):
            raise InputError(f"it has no image: set executors.{self._name}.image, or one in its pod template")
        return pod

    def sync(self) -> None:
        now = self._now
        # what waits is asked of the database: the more there are, the less often
        pause = _LOOK_SECONDS * max(1.0, len(self._attempts) / 50)
        for key, attempt in list(self._attempts.items()):
            if now - attempt.looked >= pause and not attempt.is_quiet:
                self._look(key, attempt)

    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        """Take over all of them: pods go on by themselves, and what has none is found out by the next look at all."""
        for each in attempts:
            self._attempts[each.key] = adopted = PodAttempt(None, self._now)
            adopted.begun = each.running
        for watch in self._watches:
            watch.list_again()
        return []

    def terminate(self, key: AttemptKey) -> None:
        attempt = self._attempts.get(key)
        if attempt is None:
            return
        # what runs in it is told by its next heartbeat as well; one that has reported, as the last one of an engine
        # that ends, has its grace to hand its log in, and nothing else would delete it before the next engine
        self._delete_all(attempt)
        self._end(key, ProcessExit(reason=_TOLD_TO_STOP))

    def running(self) -> frozenset[AttemptKey]:
        return frozenset(self._attempts)

    def end(self, grace: timedelta) -> None:
        for watch in self._watches:
            watch.end()
        if self._writer is not None:
            self._writer.end()
        self._attempts.clear()

    # -- what the cluster shows ------------------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return self._host.clock.monotonic()

    def _soon(self, act: Callable[[], None]) -> None:
        self._host.reactor.call_soon(act)

    def on_made(self, workload: ExecuteTask, rank: int, place: PodPlace) -> None:
        """See `PodWriterEvents`."""
        self._soon(lambda: self._made(workload, rank, place))

    def on_put_back(self, workload: ExecuteTask, reason: str) -> None:
        """See `PodWriterEvents`."""
        self._soon(lambda: self._put_back(workload, reason))

    def on_refused(self, workload: ExecuteTask, reason: str) -> None:
        """See `PodWriterEvents`."""
        exit = ProcessExit(reason=f"its pod was refused: {reason}", refused=True)
        self._soon(lambda: self._refused(workload.key, exit))

    def on_listed(self, namespace: str, pods: list[dict[str, Any]]) -> None:
        """See `PodWatchEvents`."""
        found = [(key, summary_of(pod)) for pod in pods if (key := key_of(pod)) is not None]
        asked_before = self._now
        self._soon(lambda: self._listed(namespace, found, asked_before))

    def on_event(self, namespace: str, kind: str, pod: dict[str, Any]) -> None:
        """See `PodWatchEvents`."""
        key = key_of(pod)
        if key is not None:
            summary = summary_of(pod)
            self._soon(lambda: self._event(kind, key, summary))

    def _made(self, workload: ExecuteTask, rank: int, place: PodPlace) -> None:
        attempt = self._attempts.get(workload.key)
        self._host.taken(workload.executor)
        if attempt is not None:
            # it may have been seen to be gone before its maker is heard
            made = attempt.ranks.setdefault(rank, RankPod(self._now, pending=True))
            made.pending, made.asked, made.place = False, self._now, place
        else:
            # it was called off meanwhile
            self._delete(place)

    def _put_back(self, workload: ExecuteTask, reason: str) -> None:
        attempt = self._attempts.pop(workload.key, None)
        if attempt is not None:
            # ranks that wait for one that has no place would keep others from theirs
            self._delete_all(attempt)
            self._host.not_taken(workload, reason)

    def _refused(self, key: AttemptKey, exit: ProcessExit) -> None:
        if (attempt := self._attempts.get(key)) is not None:
            self._delete_all(attempt)
        self._end(key, exit)

    def _listed(self, namespace: str, found: Sequence[tuple[AttemptKey, PodSummary]], at: float) -> None:
        for key, pod in found:
            self._event("MODIFIED", key, pod)
        there = {(key, pod.rank) for key, pod in found}
        for key, attempt in list(self._attempts.items()):
            for pod in attempt.pods_before(at):
                if pod.place.namespace == namespace and (key, pod.rank) not in there:
                    self._event("DELETED", key, pod)
            if attempt.workload is None and not attempt.ranks and attempt.asked < at:
                self._not_found(key, attempt, namespace)

    def _not_found(self, key: AttemptKey, attempt: PodAttempt, namespace: str) -> None:
        """Look at an attempt of another engine that has no pod in any namespace: one that has begun is heard or not."""
        attempt.not_in.add(namespace)
        if len(attempt.not_in) == len(self._watches):
            attempt.asked = -math.inf
            self._look(key, attempt)

    def _event(self, kind: str, key: AttemptKey, pod: PodSummary) -> None:
        attempt = self._attempts.get(key)
        if attempt is None:
            if kind == "DELETED":
                self._leftovers.pop(pod.place, None)
            else:
                self._leftover(key, pod)
            return
        if kind != "DELETED":
            attempt.show(pod, self._now)
        elif not attempt.miss(pod):
            return
        self._look(key, attempt)

    # -- what that means -------------------------------------------------------------------------------------------

    def _look(self, key: AttemptKey, attempt: PodAttempt) -> None:
        now = attempt.looked = self._now
        if attempt.ranks and all(each.pending for each in attempt.ranks.values()):
            return
        if attempt.may_have_begun:
            attempt.begun = attempt.begun or self._host.has_begun(key)
        reported = attempt.begun and self._host.has_reported(key)
        self._act(key, attempt, attempt.judge(now, self._options, reported=reported))

    def _act(self, key: AttemptKey, attempt: PodAttempt, verdict: AttemptVerdict) -> None:
        if verdict.step is Step.MAKE:
            if attempt.workload is None:
                # what claims it is nowhere known: it is made anew
                self._delete_all(attempt)
                self._end(key, ProcessExit(reason="its engine ended before its pod was made", delivered=False))
                return
            for rank in verdict.make:
                attempt.ranks[rank] = RankPod(self._now, pending=True)
            self._make(attempt.workload, verdict.make)
        elif verdict.step is Step.END:
            assert verdict.exit is not None
            self._end(key, verdict.exit)
            self._delete_all(attempt)
        elif verdict.step is Step.GIVE_BACK:
            if self._host.has_begun(key):
                attempt.begun, attempt.asks_again_at = True, None
                return
            self._delete_all(attempt)
        elif verdict.step is Step.OVER:
            for cause in attempt.causes():
                self._host.explain(key, cause)
            self._clear_away(attempt)
        if verdict.step in (Step.MAKE, Step.WAIT, Step.GIVE_BACK) and verdict.note != attempt.note:
            attempt.note = verdict.note
            self._host.note(key, verdict.note)

    def _clear_away(self, attempt: PodAttempt) -> None:
        """Delete the pods of an attempt that is over: those that have ended, and all when its first one has."""
        first = attempt.ranks.get(0)
        all_of_them = first is None or first.pod is None or first.pod.ended
        for each in attempt.ranks.values():
            if each.pod is not None and (all_of_them or each.pod.ended) and not each.pod.deleting:
                self._delete(each.pod.place)

    def _delete_all(self, attempt: PodAttempt) -> None:
        for place in attempt.places:
            self._delete(place)

    def _end(self, key: AttemptKey, exit: ProcessExit) -> None:
        if self._attempts.pop(key, None) is not None:
            self._host.exited(key, exit)

    def _delete(self, place: PodPlace) -> None:
        assert self._writer is not None
        self._leftovers.pop(place, None)
        self._writer.delete(place)

    def _leftover(self, key: AttemptKey, pod: PodSummary) -> None:
        """Delete a pod that no attempt here has, when it ended and its attempt is over, or was over long ago; and one
        that has not begun, and is not waited for any more."""
        if pod.deleting:
            return
        if not pod.ended:
            if pod.rank and self._host.has_reported(key):
                self._delete(pod.place)
                return
            if pod.phase == "Pending" and self._host.has_begun(key):
                self._delete(pod.place)
            return
        since = self._leftovers.setdefault(pod.place, self._now)
        if pod.rank and (cause := rank_cause(pod)) is not None:
            self._host.explain(key, cause)
        if self._host.has_reported(key) or self._now - since >= _KEPT_SECONDS:
            self._delete(pod.place)


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")
