"""What clients ask first: which groups and kinds there are, how they are written, the server's version; and lists as
tables, which `kubectl get` prints."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from trainflow.testing.kubernetes_api.resources import PODS, RESOURCES, VERSION, Resource, definitions
from trainflow.testing.kubernetes_api.versioned_objects import Object

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_OPENAPI = "/openapi/v3/"


def discovered(path: str) -> dict[str, Any] | None:
    """The document at a path; None: there is none."""
    if path == "/version":
        major, minor, _ = VERSION.split(".")
        return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        groups = [_group(each) for each in _groups() if each[0]]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path.rstrip("/") == _OPENAPI.rstrip("/"):
        paths = [_path(group, version) for group, version in _groups()]
        return {"paths": {each: {"serverRelativeURL": f"{_OPENAPI}{each}?hash={VERSION}"} for each in paths}}
    for group, version in _groups():
        if path.strip("/") == _path(group, version):
            return _resource_list(group, version)
        if path == f"/apis/{group}" and group:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group((group, version))}
        if path == f"{_OPENAPI}{_path(group, version)}":
            return _openapi(group, version)
    return None


def _groups() -> list[tuple[str, str]]:
    return list(dict.fromkeys((each.group, each.version) for each in RESOURCES))


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _group(group: tuple[str, str]) -> dict[str, Any]:
    name, version = group
    this = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [this], "preferredVersion": this}


def _of(group: str, version: str) -> list[Resource]:
    return [each for each in RESOURCES if (each.group, each.version) == (group, version)]


def _resource_list(group: str, version: str) -> dict[str, Any]:
    listed: list[dict[str, Any]] = [
        {
            "name": each.plural,
            "singularName": each.kind.lower(),
            "namespaced": each.namespaced,
            "kind": each.kind,
            "verbs": list(_VERBS),
            "shortNames": list(each.short),
        }
        for each in _of(group, version)
    ]
    if PODS in _of(group, version):
        for name, kind, verbs in (
            ("log", "Pod", ["get"]),
            ("exec", "PodExecOptions", ["create", "get"]),
            ("status", "Pod", ["get", "patch", "update"]),
        ):
            listed.append(
                {"name": f"pods/{name}", "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
            )
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


@cache
def _openapi(group: str, version: str) -> dict[str, Any]:
    """The OpenAPI document of a group: enough to know that fields are validated, and what kinds look like."""
    paths, schemas = {}, {}
    for each in _of(group, version):
        kind = {"group": each.group, "version": each.version, "kind": each.kind}
        operation = {
            "x-kubernetes-group-version-kind": kind,
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "responses": {},
        }
        where = "namespaces/{namespace}/" if each.namespaced else ""
        paths[f"/{_path(group, version)}/{where}{each.plural}/{{name}}"] = {"patch": operation}
    wanted = [
        name
        for name, schema in definitions().items()
        if any(
            (kind["group"], kind["version"]) == (group, version) and kind["kind"] in {each.kind for each in RESOURCES}
            for kind in schema.get("x-kubernetes-group-version-kind", ())
        )
    ]
    while wanted:
        name = wanted.pop()
        if name not in schemas:
            schemas[name] = _rewritten(definitions()[name], wanted)
    info = {"title": "trainflow.testing", "version": VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _rewritten(schema: Any, wanted: list[str]) -> Any:
    """A schema as OpenAPI has it, and the names of those that it refers to."""
    if isinstance(schema, list):
        return [_rewritten(each, wanted) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        wanted.append(name)
        return {"allOf": [{"$ref": f"#/components/schemas/{name}"}], "default": {}}
    made = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            made[key] = next(each for each in value if each != "null")
        else:
            made[key] = _rewritten(value, wanted)
    return made


_PODS = ("Name", "Ready", "Status", "Restarts", "Age")
_OTHERS = ("Name", "Age")


def table(resource: Resource, items: list[Object], version: str, now: datetime) -> dict[str, Any]:
    """The table of some objects, with enough of each to select and sort by."""
    names = _PODS if resource == PODS else _OTHERS
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": 0,
            }
            for name in names
        ],
        "rows": [{"cells": _cells(resource, item, now), "object": _partial(item)} for item in items],
    }


def _partial(item: Object) -> dict[str, Any]:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}


def _cells(resource: Resource, item: Object, now: datetime) -> list[Any]:
    metadata = item["metadata"]
    name, age = metadata["name"], _age(metadata.get("creationTimestamp"), now)
    if resource != PODS:
        return [name, age]
    states = item["status"].get("containerStatuses", ())
    ready = f"{sum(each['ready'] for each in states)}/{len(item['spec']['containers'])}"
    return [name, ready, _status(item), str(sum(each["restartCount"] for each in states)), age]


def _status(pod: Object) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for each in pod["status"].get("containerStatuses", ()):
        for state in ("waiting", "terminated"):
            if reason := each["state"].get(state, {}).get("reason"):
                return str(reason)
    return str(pod["status"].get("reason") or pod["status"].get("phase", "Unknown"))


def _age(created: str | None, now: datetime) -> str:
    if created is None:
        return "<unknown>"
    seconds = int((now - datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)).total_seconds())
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m"
