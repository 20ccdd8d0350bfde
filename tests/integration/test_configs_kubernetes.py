"""The manifests that are shipped: valid by the published schemas, and taken by a server under `kubectl`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubernetes_clients import Kubectl, write_kubeconfig
from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.executors.kubernetes.pod import pod_of
from trainflow.executors.plugins import read_options
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.settings.pod_template import read_template
from trainflow.testing.kubernetes_api.server import PodApiServer

FOLDER = Path(__file__).parent.parent.parent / "configs" / "kubernetes"
TEMPLATE = FOLDER / "gpu-pod.yaml"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path != TEMPLATE)


def manifests() -> list[dict[str, Any]]:
    return [item for path in FILES for item in yaml.safe_load_all(path.read_text())]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_manifests_are_valid(version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for item in manifests():
        kubernetes_validate.validate(item, version, strict=True)
    assert {item["kind"] for item in manifests()} >= {"Namespace", "Role", "RoleBinding", "Deployment", "Service"}


def test_pod_over_shipped_template_is_valid() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    workload = ExecuteTask(
        AttemptKey("a"), 1, "d", "r", "t", -1, DagSource("p.yaml"), "/project", "/project/.trainflow", "/a.log"
    )
    template = read_template(TEMPLATE, "configs/kubernetes/gpu-pod.yaml")
    options = KubernetesOptions(secret=True)
    pod = pod_of(workload, options, "trainflow", templates=[template], engine="e", stop_grace_seconds=30)
    kubernetes_validate.validate(pod, "1.37", strict=True)
    assert pod["spec"]["containers"][0]["image"] == "registry.example/trainflow-project:1-cuda"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 300


def test_settings_of_manifests_are_settings() -> None:
    (text,) = [item["data"]["trainflow.toml"] for item in manifests() if item["kind"] == "ConfigMap"]
    table = tomllib.loads(text)["executors"]["cluster"]
    own = {key: value for key, value in table.items() if key not in ("type", "slots")}
    assert read_options("cluster", own, KubernetesOptions).secret is True


def test_rights_of_scheduler_are_the_least() -> None:
    (role,) = [item for item in manifests() if item["kind"] == "Role"]
    verbs = {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}
    assert verbs == {"pods": ["create", "delete", "get", "list", "watch"], "secrets": ["create"]}


def test_kubectl_applies_manifests(tmp_path: Path) -> None:
    with PodApiServer(tmp_path / "pods") as server:
        client = Kubectl(write_kubeconfig(tmp_path / "config", server.kubeconfig()))
        said = client.run("apply", *(word for path in FILES_IN_ORDER for word in ("-f", str(path))))
    assert said.count("created") == len(manifests())


FILES_IN_ORDER = sorted(FILES, key=lambda path: (path.name != "namespace.yaml", path.name))
