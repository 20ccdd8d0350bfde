"""The status of pods, as a kubelet writes it: pure functions of an object to the object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainflow.testing.kubernetes_api.container import ContainerEnd
from trainflow.testing.kubernetes_api.versioned_objects import Object

NODE = "this-machine"


def unscheduled(pod: Object, now: str, message: str) -> Object:
    """No node can take it."""
    return _with_condition(pod, "PodScheduled", "False", now, reason="Unschedulable", message=message)


def scheduled(pod: Object, now: str) -> Object:
    """A node takes it."""
    pod["spec"]["nodeName"] = NODE
    pod["status"].setdefault("startTime", now)
    pod["status"]["hostIP"] = pod["status"]["podIP"] = "127.0.0.1"
    _with_condition(pod, "PodScheduled", "True", now)
    return waiting(pod, now, "ContainerCreating")


def waiting(pod: Object, now: str, reason: str, message: str = "", *, only: str | None = None) -> Object:
    """Have its containers (`only`: one of them) wait."""
    state = {"reason": reason} | ({"message": message} if message else {})
    for container in pod["spec"]["containers"]:
        if only in (None, container["name"]):
            _set_state(pod, container["name"], {"waiting": state})
    return _ready(pod, now)


def started(pod: Object, now: str, name: str) -> Object:
    """A container runs."""
    _set_state(pod, name, {"running": {"startedAt": now}})
    if _is_of_pod(pod, name):
        pod["status"]["phase"] = "Running"
    return _ready(pod, now)


def ended(pod: Object, now: str, name: str, end: ContainerEnd, began: str | None, *, again: bool) -> Object:
    """A container ended. `again`: it is started once more."""
    last: dict[str, Any] = {"exitCode": end.code, "reason": end.reason, "startedAt": began or now, "finishedAt": now}
    if end.message:
        last["message"] = end.message
    if again:
        entry = _set_state(pod, name, {"waiting": {"reason": "CrashLoopBackOff"}})
        entry["lastState"], entry["restartCount"] = {"terminated": last}, entry["restartCount"] + 1
    else:
        _set_state(pod, name, {"terminated": last})
    return _ready(pod, now)


def finished(pod: Object) -> Object:
    """All of its containers ended, for good."""
    states = [each["state"]["terminated"] for each in pod["status"]["containerStatuses"]]
    pod["status"]["phase"] = "Failed" if any(state["exitCode"] for state in states) else "Succeeded"
    return pod


def failed(pod: Object) -> Object:
    """End it: what comes before its containers has failed."""
    pod["status"]["phase"] = "Failed"
    return pod


def evicted(pod: Object, now: str, message: str) -> Object:
    """End it: its node had to get rid of it."""
    pod["status"].update(phase="Failed", reason="Evicted", message=message)
    return _with_condition(pod, "DisruptionTarget", "True", now, reason="TerminationByKubelet", message=message)


def _with_condition(pod: Object, kind: str, status: str, now: str, **more: str) -> Object:
    conditions = {each["type"]: each for each in pod["status"].get("conditions", ())}
    before = conditions.get(kind, {})
    since = before["lastTransitionTime"] if before.get("status") == status else now
    conditions[kind] = {"type": kind, "status": status, "lastTransitionTime": since, **more}
    pod["status"]["conditions"] = list(conditions.values())
    return pod


def _ready(pod: Object, now: str) -> Object:
    states = pod["status"].get("containerStatuses", ())
    ready = bool(states) and all(each["ready"] for each in states)
    return _with_condition(pod, "Ready", "True" if ready else "False", now)


def _is_of_pod(pod: Object, name: str) -> bool:
    return any(each["name"] == name for each in pod["spec"]["containers"])


def _set_state(pod: Object, name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    kind = "containers" if _is_of_pod(pod, name) else "initContainers"
    entries = pod["status"].setdefault("containerStatuses" if kind == "containers" else "initContainerStatuses", [])
    entry: dict[str, Any] | None = next((each for each in entries if each["name"] == name), None)
    if entry is None:
        image = next(each["image"] for each in pod["spec"][kind] if each["name"] == name)
        entry = {"name": name, "image": image, "imageID": "", "restartCount": 0, "lastState": {}}
        entries.append(entry)
    entry.update(state=dict(state), ready="running" in state, started="running" in state)
    return entry
