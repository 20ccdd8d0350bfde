"""Pod templates: how they are laid over each other, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainflow.errors import InputError
from trainflow.settings.pod_template import merged, read_template


@pytest.mark.parametrize(
    ("under", "over", "expected"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": {"b": 1, "c": 1}}, {"a": {"b": 2}}, {"a": {"b": 2, "c": 1}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        (
            {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]},
            {"containers": [{"name": "a", "env": []}, {"name": "c"}]},
            {"containers": [{"name": "a", "image": "1", "env": []}, {"name": "b"}, {"name": "c"}]},
        ),
        (
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]},
            {"env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}]},
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/a"}]},
            {"volumeMounts": [{"name": "v", "mountPath": "/b"}]},
            {"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]},
        ),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, {}, {"volumes": [{"name": "v", "emptyDir": {}}]}),
    ],
)
def test_merged(under: Any, over: Any, expected: Any) -> None:
    assert merged(under, over) == expected


GOOD = """
spec:
  nodeSelector: {gpu: h100}
  serviceAccountName: trainer
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
  volumes: [{name: cache, emptyDir: {sizeLimit: 1}}, {name: data, persistentVolumeClaim: {claimName: data}}]
  containers:
    - name: trainflow
      image: registry/gpu:1
      resources: {limits: {nvidia.com/gpu: 1, memory: 64Gi}, requests: {cpu: 0.5}}
      volumeMounts: [{name: data, mountPath: /data}]
"""


def written(tmp_path: Path, text: str) -> dict[str, Any]:
    (tmp_path / "gpu.yaml").write_text(text)
    return read_template(tmp_path / "gpu.yaml", "configs/gpu.yaml")


def test_good_template_is_read(tmp_path: Path) -> None:
    assert written(tmp_path, GOOD)["spec"]["nodeSelector"] == {"gpu": "h100"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("spec:\n  nodeselector: {}\n", "2:3: spec.nodeselector: unknown field; did you mean 'nodeSelector'?"),
        ("spec:\n  tolerations:\n    - {kee: x}\n", "3:8: spec.tolerations[0].kee: unknown field; did you mean 'key'"),
        ("spec:\n  nodeSelector: [a]\n", "2:3: spec.nodeSelector: must be a mapping"),
        ("spec:\n  containers: {}\n", "2:3: spec.containers: must be a list"),
        ("spec:\n  hostNetwork: 1\n", "2:3: spec.hostNetwork: must be true or false, and is 1"),
        (
            "spec:\n  nodeSelector: {zone: 1}\n",
            "2:18: spec.nodeSelector.zone: must be text, and is 1: put it in quotes",
        ),
        ("spec:\n  priority: high\n", "2:3: spec.priority: must be a whole number, and is 'high'"),
        ("spec:\n  restartPolicy: Always\n", "2:3: spec.restartPolicy: must be Never"),
        ("spec:\n  containers: [{name: main}]\n", "must be called 'trainflow'"),
        ("spec:\n  containers: [{image: x}]\n", "spec.containers[0]: has no name"),
        ("spec:\n  containers: [{name: trainflow, command: [sh]}]\n", ".command: is given by trainflow: leave it out"),
        ("metadata:\n  name: x\n", "2:3: metadata.name: is given by trainflow: leave it out"),
        ("sepc: {}\n", "1:1: sepc: unknown field; did you mean 'spec'?"),
        ("kind: Deployment\n", "1:1: kind: a pod template is a Pod, and this is a Deployment"),
        ("- a\n", "a pod template is a mapping with 'spec'"),
        ("spec: [\n", "2:1: no valid YAML"),
    ],
)
def test_wrong_template_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    pytest.importorskip("lightkube")
    with pytest.raises(InputError) as refused:
        written(tmp_path, text)
    assert str(refused.value).startswith("configs/gpu.yaml:")
    assert told in str(refused.value)


def test_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"configs/gpu.yaml: the pod template cannot be read: No such file"):
        read_template(tmp_path / "gpu.yaml", "configs/gpu.yaml")
