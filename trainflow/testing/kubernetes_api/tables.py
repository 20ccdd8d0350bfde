"""Lists as tables: what `kubectl get` asks for and prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from trainflow.testing.kubernetes_api.resources import PODS, Resource
from trainflow.testing.kubernetes_api.versioned_objects import Object

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
