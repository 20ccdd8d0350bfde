"""Strict validation: unknown fields, wrong types; and the same verdict as kubernetes-validate's own."""

from __future__ import annotations

from typing import Any

import pytest

from trainflow.testing.kubernetes_api.resources import PODS, RESOURCES, VERSION, schema_of, unknown_and_wrong

pytest.importorskip("kubernetes_validate")


def pod(**spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "any", "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "2Gi"}}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers} | spec}


@pytest.mark.parametrize(
    ("item", "problems"),
    [
        (pod(), []),
        (pod(nodeSelector={"a": "b"}, tolerations=[{"key": "k", "operator": "Exists"}]), []),
        (pod(nodeselector={}), ['unknown field "spec.nodeselector"']),
        (pod(tolerations=[{"kee": "k"}]), ['unknown field "spec.tolerations[0].kee"']),
        (pod(priority="30"), ['field "spec.priority" must be of type integer, and is "30"']),
        (pod(hostNetwork="yes"), ['field "spec.hostNetwork" must be of type boolean, and is "yes"']),
        (pod(priority=True), ['field "spec.priority" must be of type integer, and is true']),
        (pod(nodeSelector={"a": 1}), ['field "spec.nodeSelector.a" must be of type string, and is 1']),
        (pod(volumes=[{"emptyDir": {}}]), ['field "spec.volumes[0].name" is required']),
        (pod(nodeSelector=None), []),
    ],
)  # fmt: skip
def test_problems_of_pod_are_those_of_a_strict_server(item: dict[str, Any], problems: list[str]) -> None:
    import kubernetes_validate

    assert unknown_and_wrong(PODS, item) == problems
    if problems:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(item, VERSION, strict=True)
    else:
        kubernetes_validate.validate(item, VERSION, strict=True)


def test_every_kind_has_a_schema() -> None:
    assert all(schema_of(resource)["properties"] for resource in RESOURCES)
