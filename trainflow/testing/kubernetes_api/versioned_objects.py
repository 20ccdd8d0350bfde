"""Objects, their versions, and what was changed in which order: what etcd is for a cluster. Which of them a label or a
field selector means."""

from __future__ import annotations

import copy
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trainflow.clock import Clock
from trainflow.testing.kubernetes_api.resources import Resource
from trainflow.testing.kubernetes_api.status import already_exists, bad_request, conflict, gone, not_found

Object = dict[str, Any]


class Change(NamedTuple):
    """One change of one object; `before` and `after`: None where it was not there."""

    version: int
    before: Object | None
    after: Object | None


def copied(item: Object) -> Object:
    """An object of its own."""
    return copy.deepcopy(item)


class VersionedObjects:
    """All objects of a cluster. Every change gives it the next version. `changed` is notified of each."""

    def __init__(self, clock: Clock) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._clock = clock
        self._objects: dict[Resource, dict[tuple[str, str], Object]] = {}
        self._changes: dict[Resource, list[Change]] = {}
        self._version = 1
        #: changes up to this version are forgotten
        self._oldest = 0

    @property
    def version(self) -> int:
        """The newest version."""
        return self._version

    def now(self) -> str:
        """The time, as objects hold it."""
        return f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ}"

    def create(self, resource: Resource, item: Object) -> Object:
        """Keep a new object. Raises ApiStatus when there is one of its name."""
        with self.changed:
            made = copied(item)
            metadata = made["metadata"]
            if self._of(resource).get(_key(made)) is not None:
                raise already_exists(resource.qualified, metadata["name"])
            metadata["uid"] = str(uuid.uuid4())
            metadata["creationTimestamp"] = self.now()
            return self._put(resource, None, made)

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """An object. Raises ApiStatus when there is none."""
        with self.changed:
            found = self._of(resource).get((namespace or "", name))
            if found is None:
                raise not_found(resource.qualified, name)
            return copied(found)

    def listing(self, resource: Resource, namespace: str | None) -> tuple[int, list[Object]]:
        """The version, and all objects of a namespace (None: of all) at that time."""
        with self.changed:
            items = [
                copied(item) for (where, _), item in sorted(self._of(resource).items()) if namespace in (None, where)
            ]
            return self._version, items

    def change(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        how: Callable[[Object], Object | None],
        *,
        uid: str | None = None,
    ) -> Object:
        """Change an object by a function of it; None, or what equals it, changes nothing. `uid`: only if it is this
        one. Raises ApiStatus when it is not there, is another one, or has another version than the one that comes."""
        with self.changed:
            before = self.get(resource, namespace, name)
            if uid is not None and before["metadata"]["uid"] != uid:
                raise conflict(resource.qualified, name, "the UID in the precondition does not match")
            after = how(copied(before))
            if after is None:
                return before
            metadata = after["metadata"]
            if metadata.get("resourceVersion") not in (None, "", before["metadata"]["resourceVersion"]):
                why = "the object has been modified; please apply your changes to the latest version and try again"
                raise conflict(resource.qualified, name, why)
            metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
            return before if after == before else self._put(resource, before, after)

    def remove(self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None) -> Object | None:
        """Have an object no more, nor those that it owns. None: it was not there, or is another one than `uid`."""
        with self.changed:
            found = self._of(resource).get((namespace or "", name))
            if found is None or uid not in (None, found["metadata"]["uid"]):
                return None
            del self._of(resource)[namespace or "", name]
            last = copied(found)
            self._version += 1
            last["metadata"]["resourceVersion"] = str(self._version)
            self._note(resource, found, None, last)
            self._collect(found["metadata"]["uid"])
            return last

    def _collect(self, owner: str) -> None:
        """What a garbage collector does: dependents of what is gone go too."""
        for resource, items in list(self._objects.items()):
            for (namespace, name), item in list(items.items()):
                if any(each["uid"] == owner for each in item["metadata"].get("ownerReferences", ())):
                    self.remove(resource, namespace, name)

    def changes(self, resource: Resource, since: int) -> list[Change]:
        """What was changed after a version. Raises ApiStatus (410) when that is not remembered."""
        with self.changed:
            if since < self._oldest:
                raise gone(since, self._oldest)
            return [change for change in self._changes.get(resource, ()) if change.version > since]

    def forget_changes(self) -> None:
        """Remember no change up to now, as after a compaction: who watches from an older version gets 410."""
        with self.changed:
            self._changes.clear()
            self._version += 1
            self._oldest = self._version
            self.changed.notify_all()

    def _of(self, resource: Resource) -> dict[tuple[str, str], Object]:
        return self._objects.setdefault(resource, {})

    def _put(self, resource: Resource, before: Object | None, after: Object) -> Object:
        self._version += 1
        after["metadata"]["resourceVersion"] = str(self._version)
        self._of(resource)[_key(after)] = after
        self._note(resource, before, after, after)
        return copied(after)

    def _note(self, resource: Resource, before: Object | None, after: Object | None, last: Object) -> None:
        gone_now = last if after is None else before
        self._changes.setdefault(resource, []).append(
            Change(self._version, copied(gone_now) if gone_now else None, copied(after) if after else None)
        )
        self.changed.notify_all()


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace") or "", item["metadata"]["name"]


Selector = Callable[[Mapping[str, Any]], bool]

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<word>in|notin)\s+\((?P<values>[^)]*)\)")
_EQUAL = re.compile(rf"(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*)")
_THERE = re.compile(rf"(?P<no>!?)\s*(?P<key>{_KEY})")
#: fields that may be selected by, of every kind and of pods
_FIELDS = ("metadata.name", "metadata.namespace", "status.phase", "spec.nodeName", "spec.restartPolicy", "type")


def label_selector(text: str) -> Selector:
    """The selector that is written as `a=b,c!=d,e in (f,g),h,!i`. Raises ApiStatus (400) for what is none."""
    tests = [_label_test(part) for part in _parts(text)]

    def matches(item: Mapping[str, Any]) -> bool:
        labels = item["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _parts(text: str) -> list[str]:
    """The requirements: split at commas that are not inside of brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _label_test(part: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.fullmatch(part):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["word"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.fullmatch(part):
        key, value = found["key"], found["value"]
        if found["sign"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _THERE.fullmatch(part):
        key, absent = found["key"], bool(found["no"])
        return lambda labels: (key in labels) is not absent
    raise bad_request(f"unable to parse requirement: {part!r} is no label selector")


def field_selector(text: str) -> Selector:
    """The selector that is written as `metadata.name=a,status.phase!=Running`. Raises ApiStatus (400)."""
    tests = [_field_test(part) for part in _parts(text)]
    return lambda item: all(test(item) for test in tests)


def _field_test(part: str) -> Selector:
    found = re.fullmatch(r"([\w.]+)\s*(==|=|!=)\s*(.*)", part)
    if found is None:
        raise bad_request(f"invalid field selector: {part!r}")
    path, sign, value = found.groups()
    if path not in _FIELDS:
        raise bad_request(f'field label not supported: "{path}"')

    def matches(item: Mapping[str, Any]) -> bool:
        here: Any = item
        for key in path.split("."):
            here = (here or {}).get(key)
        return (str(here or "") == value) is (sign != "!=")

    return matches
