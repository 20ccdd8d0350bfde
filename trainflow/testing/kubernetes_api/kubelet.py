"""Runs pods: what a scheduler, a node and its kubelet do, as threads and processes of this machine, and what the
containers of these have written."""

from __future__ import annotations

import base64
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from trainflow.testing.kubernetes_api import pod_status
from trainflow.testing.kubernetes_api.container import Container, ContainerEnd
from trainflow.testing.kubernetes_api.resources import CONFIG_MAPS, PODS, SECRETS
from trainflow.testing.kubernetes_api.status import ApiStatus, bad_request, not_found
from trainflow.testing.kubernetes_api.versioned_objects import Object, VersionedObjects

#: how long a container that is restarted waits, in seconds: the first time, and at the longest
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 0.2, 5.0


class _Missing(Exception):
    """A thing that a container needs is not there (yet)."""


class Kubelet:
    """Runs all pods of a cluster. `unschedulable`: why no node takes a pod now; `held`: why none takes the pods of
    these names; `bad_images`: image → reason and message of its pull, which fails."""

    def __init__(self, store: VersionedObjects, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        """`environ`: what images bring; by default what commands of this interpreter need."""
        self._store = store
        self._folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self.environ = dict(environ) if environ is not None else {"PATH": path, "HOME": str(folder)}
        self.unschedulable: str | None = None
        self.held: dict[str, str] = {}
        self.bad_images: dict[str, tuple[str, str]] = {}
        self._runs: dict[str, PodRun] = {}
        self._ended = False

    def start(self, pod: Object) -> None:
        """Take a pod that was made."""
        run = PodRun(self, self._store, pod, self._folder / pod["metadata"]["uid"])
        self._runs[pod["metadata"]["uid"]] = run
        run.thread.start()

    def delete(self, pod: Object, grace: float) -> None:
        """End a pod that is to go: it gets `grace` seconds."""
        self.run_of(pod).delete(grace)

    def run_of(self, pod: Object) -> PodRun:
        """What runs a pod."""
        return self._runs[pod["metadata"]["uid"]]

    def run_named(self, namespace: str | None, name: str) -> PodRun:
        """What runs the pod of a name. Raises ApiStatus when there is none."""
        return self.run_of(self._store.get(PODS, namespace, name))

    def let_schedule(self, message: str | None = None) -> None:
        """Say why no node takes pods; None: nodes do."""
        with self._store.changed:
            self.unschedulable = message
            self._store.changed.notify_all()

    def hold(self, name: str, message: str | None) -> None:
        """Say why no node takes the pod of a name; None: nodes do."""
        with self._store.changed:
            self.held.pop(name, None)
            if message is not None:
                self.held[name] = message
            self._store.changed.notify_all()

    def end(self) -> None:
        """Kill all that runs, and wait for it."""
        with self._store.changed:
            self._ended = True
            self._store.changed.notify_all()
        for run in list(self._runs.values()):
            run.kill()
        for run in list(self._runs.values()):
            run.thread.join()

    @property
    def ended(self) -> bool:
        """Whether nothing is to be run any more."""
        return self._ended


class PodRun:
    """One pod, in a thread of its own."""

    def __init__(self, kubelet: Kubelet, store: VersionedObjects, pod: Object, folder: Path) -> None:
        self._kubelet, self._store, self._pod, self.folder = kubelet, store, pod, folder
        metadata = pod["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.containers: list[Container] = []
        #: nothing more is said of it: it was evicted, or its node is lost
        self.silent = False
        self._node_lost = False
        self._deleted = False
        self._timer: threading.Timer | None = None
        self.thread = threading.Thread(target=self._run, name=f"pod {self.name}", daemon=True)

    # -- what is done to it ----------------------------------------------------------------------------------------

    def delete(self, grace: float) -> None:
        """End it gracefully; with no grace it is gone at once."""
        with self._store.changed:
            self._deleted = True
            self._store.changed.notify_all()
        if grace <= 0:
            self.kill()
            self._store.remove(PODS, self.namespace, self.name, uid=self.uid)
        elif not self._node_lost:
            for container in list(self.containers):
                container.signal(signal.SIGTERM)
            self._timer = threading.Timer(grace, self.kill)
            self._timer.daemon = True
            self._timer.start()
            if not self.thread.is_alive():
                self._store.remove(PODS, self.namespace, self.name, uid=self.uid)

    def kill(self, reason: str | None = None) -> None:
        """Kill its processes; `reason` is said as why, such as OOMKilled."""
        for container in list(self.containers):
            container.killed_for = reason
            container.signal(signal.SIGKILL)

    def evict(self, message: str) -> None:
        """Have its node get rid of it."""
        with self._store.changed:
            self._say(partial(pod_status.evicted, now=self._store.now(), message=message))
            self.silent = True
        self.kill()

    def lose_node(self) -> None:
        """Kill its processes, and say nothing of it any more."""
        self.silent = self._node_lost = True
        self.kill()

    # -- its life --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            # one whose object was taken away under it has nothing left to run
            with suppress(ApiStatus):
                self._run_scheduled()
        finally:
            if self._timer is not None:
                self._timer.cancel()
        with self._store.changed:
            if self._deleted and not self._node_lost and not self._kubelet.ended:
                self._store.remove(PODS, self.namespace, self.name, uid=self.uid)

    def _run_scheduled(self) -> None:
        if self._is_scheduled() and self._has_images() and (environs := self._environs()) is not None:
            self._run_containers(environs)

    def _say(self, how: Callable[[Object], Object]) -> None:
        with self._store.changed, suppress(ApiStatus):
            if self.silent:  # said to have ended meanwhile
                return
            self._store.change(PODS, self.namespace, self.name, how, uid=self.uid)

    def _wait(self, problem: Callable[[], str | None], say: Callable[[str], Callable[[Object], Object]]) -> bool:
        """Wait until there is no problem, and say which there is; False: it is deleted meanwhile."""
        with self._store.changed:
            while not (self._deleted or self._kubelet.ended):
                found = problem()
                if found is None:
                    return True
                self._say(say(found))
                self._store.changed.wait()
        return False

    def _is_scheduled(self) -> bool:
        def say(message: str) -> Callable[[Object], Object]:
            return partial(pod_status.unscheduled, now=self._store.now(), message=message)

        if not self._wait(lambda: self._kubelet.held.get(self.name, self._kubelet.unschedulable), say):
            return False
        self._object()  # no node is given one that was taken away while it waited
        self._say(partial(pod_status.scheduled, now=self._store.now()))
        return True

    def _object(self) -> Object:
        """What the cluster knows of it. Raises ApiStatus when that is gone, or another pod has its name by now."""
        found: Object = self._store.get(PODS, self.namespace, self.name)
        if found["metadata"]["uid"] != self.uid:
            raise not_found("pods", self.name)
        return found

    def _has_images(self) -> bool:
        def say(image: str) -> Callable[[Object], Object]:
            reason, message = self._kubelet.bad_images[image]
            return partial(pod_status.waiting, now=self._store.now(), reason=reason, message=message)

        images = [container["image"] for container in self._pod["spec"]["containers"]]
        return self._wait(lambda: next((each for each in images if each in self._kubelet.bad_images), None), say)

    def _environs(self) -> dict[str, dict[str, str]] | None:
        """The variables of each container; None: what they come from never came."""
        found: dict[str, dict[str, str]] = {}

        def problem() -> str | None:
            try:
                for container in _all_containers(self._pod):
                    found[container["name"]] = self._environ(container)
            except _Missing as missing:
                return str(missing)
            return None

        def say(message: str) -> Callable[[Object], Object]:
            now, reason = self._store.now(), "CreateContainerConfigError"
            return partial(pod_status.waiting, now=now, reason=reason, message=message)

        return found if self._wait(problem, say) else None

    def _environ(self, container: Mapping[str, Any]) -> dict[str, str]:
        environ = dict(self._kubelet.environ)
        for source in container.get("envFrom") or ():
            for key, resource in (("secretRef", SECRETS), ("configMapRef", CONFIG_MAPS)):
                if key in source:
                    environ |= self._data(resource, source[key]["name"])
        for variable in container.get("env") or ():
            environ[variable["name"]] = self._value(variable)
        return environ

    def _value(self, variable: Mapping[str, Any]) -> str:
        source = variable.get("valueFrom")
        if source is None:
            return str(variable.get("value") or "")
        for key, resource in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIG_MAPS)):
            if key in source:
                data = self._data(resource, source[key]["name"])
                if source[key]["key"] not in data:
                    raise _Missing(f"couldn't find key {source[key]['key']} in {source[key]['name']}")
                return data[source[key]["key"]]
        here: Any = self._object()
        for part in source["fieldRef"]["fieldPath"].split("."):
            here = here[part]
        return str(here)

    def _data(self, resource: Any, name: str) -> dict[str, str]:
        try:
            item = self._store.get(resource, self.namespace, name)
        except ApiStatus:
            raise _Missing(f'{resource.kind.lower()} "{name}" not found') from None
        data = item.get("data") or {}
        if resource is SECRETS:
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        return dict(data)

    def _run_containers(self, environs: dict[str, dict[str, str]]) -> None:
        policy = self._pod["spec"]["restartPolicy"]
        for spec in self._pod["spec"].get("initContainers") or ():
            container = self._add(spec, environs)
            if container is None:
                return
            if self._run_one(container, "Never" if policy == "Never" else "OnFailure").code != 0:
                self._say(pod_status.failed)
                return
        made = [self._add(spec, environs) for spec in self._pod["spec"]["containers"]]
        threads = [threading.Thread(target=self._run_one, args=(each, policy), daemon=True) for each in made if each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if threads:
            self._say(pod_status.finished)

    def _add(self, spec: Mapping[str, Any], environs: dict[str, dict[str, str]]) -> Container | None:
        with self._store.changed:
            if self._deleted or self._kubelet.ended:
                return None
            container = Container(spec, environs[spec["name"]], self.folder)
            self.containers.append(container)
            return container

    def _run_one(self, container: Container, policy: str) -> ContainerEnd:
        """Run a container, and again where its policy wants that; how it ended the last time."""
        pause = _FIRST_BACK_OFF
        while True:
            began = self._store.now()
            end = container.run(
                lambda: self._say(partial(pod_status.started, now=self._store.now(), name=container.name))
            )
            again = policy == "Always" or (policy == "OnFailure" and end.code != 0)
            again = again and not (self._deleted or self.silent or self._kubelet.ended)
            now, name = self._store.now(), container.name
            self._say(partial(pod_status.ended, now=now, name=name, end=end, began=began, again=again))
            if not again:
                return end
            with self._store.changed:
                self._store.changed.wait_for(lambda: self._deleted or self._kubelet.ended, pause)
            pause = min(pause * 2, _LONGEST_BACK_OFF)


def _all_containers(pod: Object) -> list[Mapping[str, Any]]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


#: how often a log that is followed is looked at, in seconds
_FOLLOW_SECONDS = 0.05


def stream(
    store: VersionedObjects, run: PodRun, query: Mapping[str, str], ended: Callable[[], bool]
) -> Iterator[bytes]:
    """The log of a container, and what comes while it is followed. Raises ApiStatus (400) before it has begun."""
    container = _container(run.containers, query.get("container"), run.name)
    return _pieces(store, container, query, ended)


def _container(containers: list[Container], name: str | None, pod: str) -> Container:
    found = next((each for each in containers if name in (None, each.name) and each.log.exists()), None)
    if found is None:
        raise bad_request(f'container "{name or ""}" in pod "{pod}" is waiting to start: ContainerCreating')
    return found


def _pieces(
    store: VersionedObjects, container: Container, query: Mapping[str, str], ended: Callable[[], bool]
) -> Iterator[bytes]:
    follow, tail = query.get("follow") in ("1", "true"), query.get("tailLines")
    with container.log.open("rb") as log:
        text = log.read()
        yield b"".join(text.splitlines(keepends=True)[-int(tail) :]) if tail and int(tail) else text
        while follow and not ended():
            # whether it has ended is asked before the last is read
            process = container.process
            over = process is not None and process.returncode is not None
            if piece := log.read():
                yield piece
            elif over:
                return
            else:
                with store.changed:
                    store.changed.wait(_FOLLOW_SECONDS)
