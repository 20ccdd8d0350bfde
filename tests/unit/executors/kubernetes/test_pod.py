"""Pods and Secrets of attempts: valid by the published schemas, merged with templates, without secrets in them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.executors.kubernetes.pod import key_of, pod_name, pod_of, rank_of, secret_of
from trainflow.executors.kubernetes.pod_outcome import summary_of
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask

SECRET = "tfclaim_hush"
WORKLOAD = ExecuteTask(
    key=AttemptKey("01k9x0abcdefghjkmnpqrstvwx", 2),
    task_instance_id=1,
    dag_id="flight_delay",
    run_id="manual__2026-01-01T00:00:00+00:00",
    task_id="train",
    map_index=-1,
    source=DagSource("pipelines/flight_delay.yaml"),
    project_root="/project",
    home="/project/.trainflow",
    log_path="/project/.trainflow/logs/a.log",
    executor="k8s",
    api_url="https://trainflow.example:8080",
    claim_secret=SECRET,
)
OPTIONS = KubernetesOptions(image="registry/trainflow:1")
GPU = {
    "metadata": {"labels": {"team": "ranking"}, "annotations": {"a": "b"}},
    "spec": {
        "nodeSelector": {"gpu": "h100"},
        "serviceAccountName": "trainer",
        "terminationGracePeriodSeconds": 600,
        "containers": [
            {
                "name": "trainflow",
                "image": "registry/gpu:1",
                "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                "resources": {"limits": {"nvidia.com/gpu": 1}},
            },
            {"name": "beside", "image": "registry/beside:1"},
        ],
    },
}


def made(options: KubernetesOptions = OPTIONS, *templates: Any, workload: ExecuteTask = WORKLOAD) -> dict[str, Any]:
    return pod_of(workload, options, "ml", templates=list(templates), engine="host", stop_grace_seconds=29.5)


def validated(item: dict[str, Any]) -> dict[str, Any]:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(item, "1.37", strict=True)
    kubernetes_validate.validate(item, "1.29", strict=True)
    return item


def test_pod_name_is_a_function_of_the_attempt() -> None:
    assert pod_name(WORKLOAD.key) == "trainflow-01k9x0abcdefghjkmnpqrstvwx-2"
    assert key_of(made()) == WORKLOAD.key


@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, secret=True)])
def test_each_rank_has_a_valid_pod_that_says_which_it_is(options: KubernetesOptions) -> None:
    workload = replace(WORKLOAD, nodes=3)
    pods = [
        validated(pod_of(workload, options, "ml", rank=rank, templates=[GPU], engine="host", stop_grace_seconds=29.5))
        for rank in range(3)
    ]
    names = [pod["metadata"]["name"] for pod in pods]
    assert names == [pod_name(WORKLOAD.key), f"{pod_name(WORKLOAD.key)}-1", f"{pod_name(WORKLOAD.key)}-2"]
    for rank, pod in enumerate(pods):
        assert (key_of(pod), rank_of(pod)) == (WORKLOAD.key, (rank, 3))
        pod["metadata"]["uid"] = "u"
        assert (summary_of(pod).rank, summary_of(pod).nodes) == (rank, 3)
        variables = {each["name"]: each for each in pod["spec"]["containers"][0]["env"]}
        assert variables["TRAINFLOW_RANK"]["value"] == str(rank)
        assert variables["TRAINFLOW_RANK_HOST"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
        assert (SECRET in json.dumps(pod)) is not options.secret
        if options.secret:
            made_of = validated(secret_of(workload, pod))
            named = variables["TRAINFLOW_WORKLOAD"]["valueFrom"]["secretKeyRef"]["name"]
            assert named == made_of["metadata"]["name"] == names[rank]


def test_pod_is_valid_and_says_what_it_runs() -> None:
    pod = validated(made())
    (container,) = pod["spec"]["containers"]
    assert (container["image"], container["command"]) == ("registry/trainflow:1", ["trainflow", "execute-workload"])
    assert msgspec.json.decode(container["env"][0]["value"], type=ExecuteTask) == WORKLOAD
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 29.5
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["metadata"]["labels"]["trainflow/task"] == "train"
    assert pod["metadata"]["annotations"]["trainflow/run"] == WORKLOAD.run_id


def test_template_is_laid_under_ours() -> None:
    pod = validated(made(OPTIONS, GPU))
    container, beside = pod["spec"]["containers"]
    assert container["image"] == "registry/gpu:1"
    assert [each["name"] for each in container["env"]] == ["NCCL_DEBUG", "TRAINFLOW_WORKLOAD"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert beside["image"] == "registry/beside:1"
    assert pod["spec"]["nodeSelector"] == {"gpu": "h100"}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 600
    assert pod["metadata"]["labels"]["team"] == "ranking"
    assert pod["metadata"]["name"] == pod_name(WORKLOAD.key)


def test_image_of_a_task_wins_over_templates() -> None:
    asked = replace(WORKLOAD, executor_config={"image": "registry/task:1"})
    assert made(OPTIONS, GPU, workload=asked)["spec"]["containers"][0]["image"] == "registry/task:1"


def test_names_too_long_for_labels_are_in_annotations() -> None:
    pod = validated(made(workload=replace(WORKLOAD, dag_id="d" * 64)))
    assert "trainflow/dag" not in pod["metadata"]["labels"]
    assert pod["metadata"]["annotations"]["trainflow/dag"] == "d" * 64


def test_secret_holds_the_workload_and_the_pod_does_not() -> None:
    pod = validated(made(KubernetesOptions(image="any", secret=True), GPU))
    assert SECRET not in json.dumps(pod)
    kept = {"metadata": pod["metadata"] | {"uid": "u"}}
    secret = validated(secret_of(WORKLOAD, kept))
    assert msgspec.json.decode(secret["stringData"]["workload"], type=ExecuteTask) == WORKLOAD
    assert secret["metadata"]["ownerReferences"][0] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod["metadata"]["name"],
        "uid": "u",
    }
    reference = pod["spec"]["containers"][0]["env"][-1]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": secret["metadata"]["name"], "key": "workload"}


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        ({}, {"phase": "Pending"}),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}]},
            {"waits_for": "Unschedulable", "waits": "no"},
        ),
        (
            {"containerStatuses": [{"name": "trainflow", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
            {"waits_for": "ErrImagePull", "waits": ""},
        ),
        (
            {"phase": "Running", "containerStatuses": [{"name": "other", "state": {"terminated": {"exitCode": 1}}}]},
            {"phase": "Running", "code": None},
        ),
        (
            {"initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            {"waits_for": "ImagePullBackOff"},
        ),
        (
            {"phase": "Failed", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2}}}]},
            {"phase": "Failed", "code": 2},
        ),
        (
            {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "Why"}]},
            {"disrupted": "Why"},
        ),
    ],
)
def test_summary_of_pod(status: dict[str, Any], seen: dict[str, Any]) -> None:
    pod = made()
    pod["metadata"]["uid"] = "u"
    summary = msgspec.structs.asdict(summary_of(pod | {"status": status}))
    assert {key: summary[key] for key in seen} == seen
