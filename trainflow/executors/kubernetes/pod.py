"""What is sent to a cluster for an attempt: its pod and, where that is wanted, the Secret that holds its workload."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.messages.workload import (
    RANK_HOST_VARIABLE,
    RANK_VARIABLE,
    WORKLOAD_VARIABLE,
    AttemptKey,
    ExecuteTask,
)
from trainflow.settings.pod_template import CONTAINER, merged

Object = dict[str, Any]

#: labels: whose pods these are, and of which attempt
OWNER, ATTEMPT, DEFERRAL, ENGINE = "trainflow/owner", "trainflow/attempt", "trainflow/deferral", "trainflow/engine"
#: labels of one that is a rank of several: which, and of how many
RANK, NODES = "trainflow/rank", "trainflow/nodes"
#: key of the Secret
_KEY = "workload"
#: seconds that a supervisor takes to report after its task has stopped
_REPORT_SECONDS = 30
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class PodPlace(NamedTuple):
    """Where a pod is. `uid`: this very pod."""

    namespace: str
    name: str
    uid: str | None = None


def owner_of(api_url: str, executor: str) -> str:
    """The label of all pods of one executor of one control plane."""
    return hashlib.sha256(f"{api_url}\n{executor}".encode()).hexdigest()[:16]


def pod_name(key: AttemptKey, rank: int = 0) -> str:
    """The name of an attempt's pod; of one of its pods where each rank has its own."""
    name = re.sub(r"[^a-z0-9-]", "-", key.attempt_id.lower()).strip("-")
    return f"trainflow-{name}-{key.deferral_number}{f'-{rank}' if rank else ''}"


def key_of(pod: Mapping[str, Any]) -> AttemptKey | None:
    """The attempt of a pod; None: it is not ours."""
    labels = pod["metadata"].get("labels") or {}
    try:
        return AttemptKey(labels[ATTEMPT], int(labels[DEFERRAL]))
    except (KeyError, ValueError):
        return None


def rank_of(pod: Mapping[str, Any]) -> tuple[int, int]:
    """Which rank a pod is, and of how many."""
    labels = pod["metadata"].get("labels") or {}
    try:
        return int(labels.get(RANK, 0)), int(labels.get(NODES, 1))
    except ValueError:
        return 0, 1


def pod_of(
    workload: ExecuteTask,
    options: KubernetesOptions,
    namespace: str,
    *,
    rank: int = 0,
    templates: list[Mapping[str, Any]],
    engine: str,
    stop_grace_seconds: float,
) -> Object:
    """The pod of an attempt, or of one of its ranks. `templates` are laid over each other, ours over all of them."""
    template: Object = {}
    for each in templates:
        template = merged(template, each)
    stops = math.ceil(stop_grace_seconds) + _REPORT_SECONDS
    grace = max((template.get("spec") or {}).get("terminationGracePeriodSeconds") or 0, stops)
    config = workload.executor_config
    image = {"image": config["image"]} if config.get("image") else {}
    container: Object = {
        "name": CONTAINER,
        **image,
        "command": list(options.command),
        "env": [{"name": WORKLOAD_VARIABLE, **_variable(workload, options, rank)}, *_rank_variables(workload, rank)],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    ours: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(workload.key, rank),
            "namespace": namespace,
            "labels": _labels(workload, engine, rank),
            "annotations": {"trainflow/dag": workload.dag_id, "trainflow/run": workload.run_id}
            | {"trainflow/task": workload.task_id, "trainflow/map-index": str(workload.map_index)},
        },
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": grace, "containers": [container]},
    }
    made: Object = merged(template, ours)
    # what runs code of users may not speak to the cluster, where its template does not say so
    made["spec"].setdefault("automountServiceAccountToken", False)
    for each in made["spec"]["containers"]:
        if each["name"] == CONTAINER and options.image is not None:
            each.setdefault("image", options.image)
    return made


def _labels(workload: ExecuteTask, engine: str, rank: int) -> dict[str, str]:
    labels = {
        "app.kubernetes.io/managed-by": "trainflow",
        OWNER: owner_of(workload.api_url, workload.executor),
        ATTEMPT: workload.key.attempt_id,
        DEFERRAL: str(workload.key.deferral_number),
        ENGINE: engine,
        "trainflow/dag": workload.dag_id,
        "trainflow/task": workload.task_id,
    }
    if workload.nodes > 1:
        labels |= {RANK: str(rank), NODES: str(workload.nodes)}
    # names may be longer than a label: annotations have them whole
    return {key: value for key, value in labels.items() if _LABEL.fullmatch(value)}


def _rank_variables(workload: ExecuteTask, rank: int) -> list[Object]:
    if workload.nodes == 1:
        return []
    address = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}
    return [{"name": RANK_VARIABLE, "value": str(rank)}, {"name": RANK_HOST_VARIABLE, "valueFrom": address}]


def _variable(workload: ExecuteTask, options: KubernetesOptions, rank: int) -> Object:
    if options.secret:
        return {"valueFrom": {"secretKeyRef": {"name": pod_name(workload.key, rank), "key": _KEY}}}
    return {"value": msgspec.json.encode(workload).decode()}


def secret_of(workload: ExecuteTask, pod: Mapping[str, Any]) -> Object:
    """The Secret with the workload, which goes when its pod goes. `pod`: as the cluster has it."""
    metadata = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {key: metadata["labels"][key] for key in (OWNER, ATTEMPT, DEFERRAL)},
            "ownerReferences": [owner],
        },
        "immutable": True,
        "type": "Opaque",
        "stringData": {_KEY: msgspec.json.encode(workload).decode()},
    }
