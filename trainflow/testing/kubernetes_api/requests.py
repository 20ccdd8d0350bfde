"""Requests and what becomes of them: the verbs of the API over the objects and the pods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from trainflow.clock import Clock
from trainflow.testing.kubernetes_api import admission, kubelet
from trainflow.testing.kubernetes_api.discovery import discovered, table
from trainflow.testing.kubernetes_api.faults import Faults
from trainflow.testing.kubernetes_api.kubelet import Kubelet
from trainflow.testing.kubernetes_api.resources import (
    NAMESPACES,
    PODS,
    RESOURCES,
    RequestTarget,
    Resource,
    json_merge,
    schema_of,
    strategic_merge,
    target_of,
)
from trainflow.testing.kubernetes_api.status import ApiStatus, bad_request, conflict, forbidden
from trainflow.testing.kubernetes_api.versioned_objects import (
    Object,
    Selector,
    VersionedObjects,
    field_selector,
    label_selector,
)
from trainflow.testing.kubernetes_api.watch import WatchRequest, events

#: rules of a Role: `apiGroups`, `resources`, `verbs`
Rules = Sequence[Mapping[str, Any]]
_LONGEST_WATCH_SECONDS = 1800.0
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


class Request(NamedTuple):
    """One request. `query`: the last value of each; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    headers: Mapping[str, str]
    #: what its user may do; None: everything
    rules: Rules | None = None

    def content(self) -> Any:
        """What its body holds, JSON or YAML. Raises ApiStatus (400, 415)."""
        kind = self.headers.get("content-type", "application/json")
        if "json" not in kind and "yaml" not in kind:
            raise ApiStatus(415, "UnsupportedMediaType", f"the body of the request is {kind}: send JSON or YAML")
        try:
            if "yaml" in kind:
                return yaml.safe_load(self.body)
            return json.loads(self.body or b"{}")
        except (ValueError, yaml.YAMLError) as error:
            raise bad_request(f"the body of the request cannot be read: {error}") from None


class Response(NamedTuple):
    """An answer: a document, or a stream of pieces."""

    code: int
    body: Any = None
    stream: Iterator[bytes] | None = None
    kind: str = "application/json"
    warnings: tuple[str, ...] = ()


class CutConnection(Exception):
    """No answer: the connection ends."""


def verb_of(method: str, target: RequestTarget, query: Mapping[str, str]) -> str:
    """The verb, as rules name it. Raises ApiStatus (405)."""
    if method == "GET":
        if query.get("watch") in ("1", "true"):
            return "watch"
        return "list" if target.name is None else "get"
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch"}
    if method == "DELETE":
        return "deletecollection" if target.name is None else "delete"
    if method not in verbs:
        raise ApiStatus(405, "MethodNotAllowed", f"{method} is not allowed")
    return verbs[method]


class ObjectApi:
    """Answers requests. `ended`: whether the server ends, and with it its streams."""

    def __init__(
        self, store: VersionedObjects, kubelet: Kubelet, faults: Faults, clock: Clock, ended: Callable[[], bool]
    ) -> None:
        self._store, self._kubelet, self._faults, self._clock, self._ended = store, kubelet, faults, clock, ended
        self.bookmark_seconds = 1.0
        self._verbs: dict[str, Callable[[Request, RequestTarget], Response]] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_all,
        }

    def handle(self, request: Request) -> Response:
        """The answer. Raises ApiStatus for what is refused, CutConnection where a test wants it."""
        found = discovered(request.path)
        if found is not None and request.method == "GET":
            return Response(200, found)
        if request.path in ("/healthz", "/livez", "/readyz"):
            return Response(200, b"ok", kind="text/plain")
        target = target_of(request.path)
        if target is None:
            raise ApiStatus(404, "NotFound", "the server could not find the requested resource")
        return self._do(request, target)

    def _do(self, request: Request, target: RequestTarget) -> Response:
        verb = verb_of(request.method, target, request.query)
        self._check_rights(request, target, verb)
        fault = self._faults.next_refusal(verb, target.resource.plural)
        if fault is not None:
            if fault.status is None:
                raise CutConnection
            raise fault.status
        if target.subresource is None:
            return self._verbs[verb](request, target)
        if target.resource == PODS and target.subresource == "log" and verb == "get":
            run = self._kubelet.run_named(target.namespace, target.name or "")
            stream = kubelet.stream(self._store, run, request.query, self._ended)
            return Response(200, stream=stream, kind="text/plain")
        if target.subresource == "status" and verb in ("get", "patch", "update"):
            return self._verbs[verb](request, target)
        raise ApiStatus(404, "NotFound", f"the server has no {target.resource.plural}/{target.subresource}")

    @staticmethod
    def _check_rights(request: Request, target: RequestTarget, verb: str) -> None:
        if request.rules is None:
            return
        resource = target.resource
        name = f"{resource.plural}/{target.subresource}" if target.subresource else resource.plural
        for rule in request.rules:
            if (
                resource.group in rule.get("apiGroups", ())
                and {name, "*"} & set(rule.get("resources", ()))
                and {verb, "*"} & set(rule.get("verbs", ()))
            ):
                return
        why = f'User cannot {verb} resource "{name}" in API group "{resource.group}"'
        raise forbidden(resource.qualified, target.name or "", why)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _get(self, request: Request, target: RequestTarget) -> Response:
        item = self._store.get(target.resource, target.namespace, target.name or "")
        return Response(200, self._shown(request, target.resource, item))

    def _shown(self, request: Request, resource: Resource, item: Object) -> Any:
        if "as=Table" in request.headers.get("accept", ""):
            return table(resource, [item], item["metadata"]["resourceVersion"], self._clock.now())
        return item

    def _list(self, request: Request, target: RequestTarget) -> Response:
        resource = target.resource
        version, items = self._store.listing(resource, target.namespace)
        items = [item for item in items if _selected(request)(item)]
        start, limit = int(request.query.get("continue") or 0), int(request.query.get("limit") or 0)
        page = items[start : start + limit] if limit else items[start:]
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if start + len(page) < len(items):
            left = len(items) - start - len(page)
            metadata |= {"continue": str(start + len(page)), "remainingItemCount": left}
        if "as=Table" in request.headers.get("accept", ""):
            shown = table(resource, page, str(version), self._clock.now())
            shown["metadata"] = metadata
            return Response(200, shown)
        kind = f"{resource.kind}List"
        return Response(200, {"kind": kind, "apiVersion": resource.api_version, "metadata": metadata, "items": page})

    def _watch(self, request: Request, target: RequestTarget) -> Response:
        query = request.query
        given = query.get("resourceVersion")
        initial = query.get("sendInitialEvents") == "true"
        named = target.name
        selected = _selected(request)
        watch = WatchRequest(
            target.resource,
            target.namespace,
            selected if named is None else lambda item: item["metadata"]["name"] == named and selected(item),
            None if given in (None, "", "0") or initial else int(given),
            query.get("allowWatchBookmarks") in ("1", "true"),
            float(query.get("timeoutSeconds") or _LONGEST_WATCH_SECONDS),
            self.bookmark_seconds,
            marks_initial=initial,
        )

        def lines() -> Iterator[bytes]:
            for event in events(self._store, self._faults, watch, self._ended):
                if event["type"] not in ("BOOKMARK", "ERROR"):
                    event["object"] = self._shown(request, target.resource, event["object"])
                yield json.dumps(event).encode() + b"\n"

        return Response(200, stream=lines())

    # -- writing ---------------------------------------------------------------------------------------------------

    def _create(self, request: Request, target: RequestTarget) -> Response:
        item = request.content()
        warnings = admission.check_fields(target.resource, item, _validation(request))
        with self._store.changed:
            item = admission.admit(self._store, target.resource, target.namespace, item)
            if "dryRun" in request.query:
                return Response(201, item)
            made = self._store.create(target.resource, item)
        if target.resource == PODS:
            self._kubelet.start(made)
        return Response(201, self._shown(request, target.resource, made), warnings=tuple(warnings))

    def _update(self, request: Request, target: RequestTarget) -> Response:
        return self._change(request, target, lambda _before: request.content())

    def _patch(self, request: Request, target: RequestTarget) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0]
        patch = request.content()
        if kind == "application/merge-patch+json":
            return self._change(request, target, lambda before: json_merge(before, patch))
        if kind not in ("application/strategic-merge-patch+json", "application/apply-patch+yaml"):
            raise ApiStatus(415, "UnsupportedMediaType", f"patches of type {kind} are not understood")
        schema = schema_of(target.resource)
        try:
            return self._change(request, target, lambda before: strategic_merge(schema, before, patch))
        except ApiStatus as status:
            if status.code != 404 or kind != "application/apply-patch+yaml":
                raise
        return self._create(request, target)

    def _change(self, request: Request, target: RequestTarget, how: Callable[[Object], Any]) -> Response:
        resource, warnings = target.resource, []

        def changed(before: Object) -> Object:
            after = how(before)
            warnings.extend(admission.check_fields(resource, after, _validation(request)))
            metadata = before["metadata"]
            for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
                if key in metadata:
                    after["metadata"].setdefault(key, metadata[key])
            admission.check_update(resource, before, after)
            if target.subresource != "status" and "status" in before:
                after["status"] = before["status"]
            return before if "dryRun" in request.query else after

        made = self._store.change(resource, target.namespace, target.name or "", changed)
        return Response(200, self._shown(request, resource, made), warnings=tuple(warnings))

    # -- deleting --------------------------------------------------------------------------------------------------

    def _delete(self, request: Request, target: RequestTarget) -> Response:
        options = request.content() if request.body else {}
        grace = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        uid = (options.get("preconditions") or {}).get("uid")
        item = self._store.get(target.resource, target.namespace, target.name or "")
        if uid not in (None, item["metadata"]["uid"]):
            raise conflict(target.resource.qualified, target.name or "", "the UID in the precondition does not match")
        if target.resource == PODS:
            return Response(200, self._delete_pod(item, None if grace is None else int(grace)))
        if target.resource == NAMESPACES:
            self._empty_namespace(item["metadata"]["name"])
        self._store.remove(target.resource, target.namespace, target.name or "", uid=uid)
        return Response(200, _SUCCESS)

    def _delete_pod(self, pod: Object, grace: int | None) -> Object:
        if grace is None:
            grace = pod["spec"]["terminationGracePeriodSeconds"]
        if not pod["spec"].get("nodeName") or pod["status"].get("phase") in ("Succeeded", "Failed"):
            grace = 0

        def marked(item: Object) -> Object:
            item["metadata"].update(deletionTimestamp=self._store.now(), deletionGracePeriodSeconds=grace)
            return item

        metadata = pod["metadata"]
        made = self._store.change(PODS, metadata["namespace"], metadata["name"], marked, uid=metadata["uid"])
        self._kubelet.delete(made, grace)
        return made

    def _delete_all(self, request: Request, target: RequestTarget) -> Response:
        _, items = self._store.listing(target.resource, target.namespace)
        for item in items:
            if _selected(request)(item):
                metadata = item["metadata"]
                self._delete(request, target._replace(namespace=metadata.get("namespace"), name=metadata["name"]))
        return Response(200, _SUCCESS)

    def _empty_namespace(self, name: str) -> None:
        for resource in RESOURCES:
            for item in self._store.listing(resource, name)[1] if resource.namespaced else ():
                if resource == PODS:
                    self._delete_pod(item, 0)
                else:
                    self._store.remove(resource, name, item["metadata"]["name"])


def _selected(request: Request) -> Selector:
    labels = label_selector(request.query.get("labelSelector", ""))
    fields = field_selector(request.query.get("fieldSelector", ""))
    return lambda item: labels(item) and fields(item)


def _validation(request: Request) -> str:
    """How fields are validated; by default strictly, which a cluster does only when it is asked to."""
    return request.query.get("fieldValidation", "Strict")
