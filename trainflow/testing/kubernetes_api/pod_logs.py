"""What the containers of pods have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from trainflow.testing.kubernetes_api.container import Container
from trainflow.testing.kubernetes_api.kubelet import PodRun
from trainflow.testing.kubernetes_api.status import bad_request
from trainflow.testing.kubernetes_api.versioned_objects import VersionedObjects

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
