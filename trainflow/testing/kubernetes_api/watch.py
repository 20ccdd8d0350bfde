"""Watches: what is changed from a version on, as a stream of events, with bookmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from trainflow.testing.kubernetes_api.faults import Faults
from trainflow.testing.kubernetes_api.resources import Resource
from trainflow.testing.kubernetes_api.status import ApiStatus
from trainflow.testing.kubernetes_api.versioned_objects import Change, Object, Selector, VersionedObjects

Event = dict[str, Any]


class WatchRequest(NamedTuple):
    """What is watched. `since`: a version, or None: what is there first. Times in seconds."""

    resource: Resource
    namespace: str | None
    selected: Selector
    since: int | None
    bookmarks: bool
    timeout: float
    bookmark_every: float
    #: a bookmark says when what was there has been sent
    marks_initial: bool = False

    def sees(self, item: Object | None) -> bool:
        """Whether an object is watched."""
        if item is None or self.namespace not in (None, item["metadata"].get("namespace")):
            return False
        return self.selected(item)


def events(store: VersionedObjects, faults: Faults, watch: WatchRequest, ended: Callable[[], bool]) -> Iterator[Event]:
    """The events of a watch, until it times out or the server ends."""
    until = time.monotonic() + watch.timeout
    since, begun = watch.since, faults.silences

    def is_silent() -> bool:
        return faults.silences > begun

    if since is None:
        with store.changed:
            since, items = store.listing(watch.resource, watch.namespace)
        yield from ({"type": "ADDED", "object": item} for item in items if watch.sees(item))
        if watch.marks_initial:
            yield _bookmark(watch.resource, since, {"k8s.io/initial-events-end": "true"})
    marked = since
    while not ended():
        try:
            changes, since = _next_changes(store, is_silent, watch, since, until, ended)
        except ApiStatus as status:
            yield {"type": "ERROR", "object": status.body()}
            return
        yield from (event for change in faults.seen(changes) if (event := _event(watch, change)) is not None)
        if watch.bookmarks and not changes and since > marked and not is_silent():
            yield _bookmark(watch.resource, since)
            marked = since
        if time.monotonic() >= until and not is_silent():
            return


def _next_changes(
    store: VersionedObjects,
    is_silent: Callable[[], bool],
    watch: WatchRequest,
    since: int,
    until: float,
    ended: Callable[[], bool],
) -> tuple[list[Change], int]:
    """What was changed after a version, waited for as long as a bookmark or the end is away; and the newest version."""
    pause = min(watch.bookmark_every, max(0.0, until - time.monotonic()))
    with store.changed:
        store.changed.wait_for(lambda: ended() or (not is_silent() and store.changes(watch.resource, since)), pause)
        if is_silent():
            return [], since
        changes = store.changes(watch.resource, since)
        return changes, max(since, store.version)


def _event(watch: WatchRequest, change: Change) -> Event | None:
    """What one who watches sees of a change: what it starts or stops to select has come or gone for it."""
    before, after = watch.sees(change.before), watch.sees(change.after)
    if after:
        return {"type": "MODIFIED" if before else "ADDED", "object": change.after}
    if before:
        return {"type": "DELETED", "object": change.after or change.before}
    return None


def _bookmark(resource: Resource, version: int, annotations: Mapping[str, str] | None = None) -> Event:
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    item: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    if resource.plural == "pods":
        item["spec"] = {"containers": None}
    return {"type": "BOOKMARK", "object": item}
