"""What is checked and filled in when an object is made: names, namespaces, schemas, defaults of pods, quotas."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from typing import Any

from trainflow.testing.kubernetes_api.resources import NAMESPACES, PODS, QUOTAS, SECRETS, Resource, unknown_and_wrong
from trainflow.testing.kubernetes_api.status import ApiStatus, bad_request, forbidden, invalid, not_found
from trainflow.testing.kubernetes_api.versioned_objects import Object, VersionedObjects

_LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
#: what the server itself says of an object
_OF_SERVER = ("uid", "creationTimestamp", "resourceVersion", "deletionTimestamp", "generation", "selfLink")


def check_fields(resource: Resource, item: Any, validation: str) -> list[str]:
    """Check an object by its schema; returns warnings. `validation`: Strict, Warn or Ignore. Raises ApiStatus (400)."""
    if not isinstance(item, dict) or not isinstance(item.get("metadata", {}), dict):
        raise bad_request("the body of the request is no object")
    for key, expected in (("kind", resource.kind), ("apiVersion", resource.api_version)):
        if item.setdefault(key, expected) != expected:
            raise bad_request(f"the {key} of the object is {item[key]!r}, and not {expected!r}")
    problems = [] if validation == "Ignore" else unknown_and_wrong(resource, item)
    if not problems or validation == "Warn":
        return problems
    raise bad_request(f"strict decoding error: {', '.join(problems)}")


def admit(store: VersionedObjects, resource: Resource, namespace: str | None, item: Object) -> Object:
    """The object as it is kept. Raises ApiStatus for what is not allowed."""
    metadata = item.setdefault("metadata", {})
    for key in _OF_SERVER:
        metadata.pop(key, None)
    if resource.namespaced:
        if metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if not _has_namespace(store, namespace):
            raise not_found("namespaces", str(namespace))
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = f"{metadata['generateName']}{os.urandom(3).hex()[:5]}"
    problems = list(_problems_of_metadata(resource, metadata))
    if resource == PODS:
        problems += _problems_of_pod(item.get("spec") or {})
    if problems:
        raise invalid(resource.kind, metadata.get("name", ""), problems)
    if resource == PODS:
        fill_in_pod(item)
        _check_quota(store, str(namespace), metadata["name"])
    elif resource == SECRETS:
        _encode_secret(item)
    elif resource == NAMESPACES:
        item.setdefault("spec", {"finalizers": ["kubernetes"]})
        item["status"] = {"phase": "Active"}
    return item


def _encode_secret(item: Object) -> None:
    data = item.setdefault("data", {})
    for key, value in (item.pop("stringData", None) or {}).items():
        data[key] = base64.b64encode(value.encode()).decode()
    item.setdefault("type", "Opaque")


def _has_namespace(store: VersionedObjects, name: str | None) -> bool:
    try:
        store.get(NAMESPACES, None, name or "")
    except ApiStatus:
        return False
    return True


def _problems_of_metadata(resource: Resource, metadata: dict[str, Any]) -> Iterator[tuple[str, str]]:
    name = metadata.get("name") or ""
    if not name:
        yield "metadata.name", "Required value: name or generateName is required"
    elif len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        yield "metadata.name", f'Invalid value: "{name}": a lowercase RFC 1123 subdomain is required'
    for key, value in (metadata.get("labels") or {}).items():
        if not _LABEL_KEY.fullmatch(key):
            yield "metadata.labels", f'Invalid value: "{key}": is no name of a label'
        if not _LABEL_VALUE.fullmatch(value):
            yield "metadata.labels", f'Invalid value: "{value}": is no value of a label, of at most 63 characters'
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for key in ("uid", "name", "kind", "apiVersion"):
            if not owner.get(key):
                yield f"metadata.ownerReferences[{index}].{key}", "Required value"


def _problems_of_pod(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    containers = spec.get("containers") or []
    if not containers:
        yield "spec.containers", "Required value"
    names: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield from _problems_of_container(container, f"spec.{kind}[{index}]", names)
            if kind == "initContainers" and container.get("restartPolicy"):
                yield f"spec.{kind}[{index}].restartPolicy", "Unsupported value: this server runs no sidecars"
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        yield "spec.terminationGracePeriodSeconds", "Invalid value: must be greater than or equal to 0"
    if spec.get("restartPolicy") not in (None, "Always", "OnFailure", "Never"):
        yield "spec.restartPolicy", f'Unsupported value: "{spec["restartPolicy"]}"'
    volumes = {volume["name"] for volume in spec.get("volumes") or ()}
    for index, container in enumerate(containers):
        for at, mount in enumerate(container.get("volumeMounts") or ()):
            if mount["name"] not in volumes:
                yield f"spec.containers[{index}].volumeMounts[{at}].name", f'Not found: "{mount["name"]}"'


def _problems_of_container(container: dict[str, Any], field: str, names: set[str]) -> Iterator[tuple[str, str]]:
    name = container.get("name") or ""
    if len(name) > 63 or not _LABEL_NAME.fullmatch(name):
        yield f"{field}.name", f'Invalid value: "{name}": a lowercase RFC 1123 label is required'
    if name in names:
        yield f"{field}.name", f'Duplicate value: "{name}"'
    names.add(name)
    if not container.get("image"):
        yield f"{field}.image", "Required value"
    for index, variable in enumerate(container.get("env") or ()):
        if "value" in variable and "valueFrom" in variable:
            yield f"{field}.env[{index}].valueFrom", "Invalid value: may not be specified when `value` is not empty"


def fill_in_pod(item: Object) -> None:
    """Give a pod what every pod has."""
    spec = item["spec"]
    for key, value in (
        ("restartPolicy", "Always"),
        ("terminationGracePeriodSeconds", 30),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
        ("serviceAccountName", "default"),
        ("securityContext", {}),
        ("enableServiceLinks", True),
    ):
        if spec.get(key) is None:
            spec[key] = value
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("resources", {})
    item["status"] = {"phase": "Pending", "qosClass": "BestEffort"}


def _check_quota(store: VersionedObjects, namespace: str, name: str) -> None:
    """Raise ApiStatus (403) where one more pod is more than a quota of the namespace allows."""
    _, pods = store.listing(PODS, namespace)
    used = sum(pod["status"].get("phase") not in ("Succeeded", "Failed") for pod in pods)
    for quota in store.listing(QUOTAS, namespace)[1]:
        hard = (quota.get("spec") or {}).get("hard") or {}
        for key in ("pods", "count/pods"):
            if key in hard and used >= int(hard[key]):
                why = (
                    f"exceeded quota: {quota['metadata']['name']}, requested: {key}=1, used: {key}={used}, "
                    f"limited: {key}={hard[key]}"
                )
                raise forbidden("pods", name, why)


def check_update(resource: Resource, before: Object, after: Object) -> None:
    """Raise ApiStatus (422) for a change of what cannot be changed."""
    name = before["metadata"]["name"]
    for key in ("name", "namespace", "uid"):
        if after["metadata"].get(key) not in (None, before["metadata"].get(key)):
            raise invalid(resource.kind, name, [(f"metadata.{key}", "Invalid value: field is immutable")])
    problems = list(_problems_of_metadata(resource, after["metadata"]))
    if resource == PODS and _unchangeable(before["spec"]) != _unchangeable(after["spec"]):
        said = "Forbidden: pod updates may not change fields other than `spec.containers[*].image` and tolerations"
        problems.append(("spec", said))
    if before.get("immutable") and any(before.get(key) != after.get(key) for key in ("data", "immutable")):
        problems.append(("data", "Forbidden: field is immutable when `immutable` is set"))
    if problems:
        raise invalid(resource.kind, name, problems)


def _unchangeable(spec: dict[str, Any]) -> Any:
    left_out = ("containers", "tolerations", "activeDeadlineSeconds")
    containers = [{key: value for key, value in each.items() if key != "image"} for each in spec["containers"]]
    return {key: value for key, value in spec.items() if key not in left_out}, containers
