"""Patches of objects."""

from __future__ import annotations

from typing import Any

import pytest

from trainflow.testing.kubernetes_api.resources import PODS, json_merge, schema_of, strategic_merge

pytest.importorskip("kubernetes_validate")

BEFORE = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "nodeSelector": {"x": "y"}}}


@pytest.mark.parametrize(
    ("patch", "spec"),
    [
        ({"containers": [{"name": "a", "image": "2"}]}, {"containers": [{"name": "a", "image": "2"}, {"name": "b"}]}),
        ({"containers": [{"name": "c"}]}, {"containers": [{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}]}),
        ({"containers": [{"name": "a", "$patch": "delete"}]}, {"containers": [{"name": "b"}]}),
        ({"nodeSelector": {"x": None, "z": "1"}}, {"nodeSelector": {"z": "1"}}),
        ({"nodeSelector": {"$patch": "replace", "z": "1"}}, {"nodeSelector": {"z": "1"}}),
        ({"nodeSelector": {"$retainKeys": ["z"], "z": "1"}}, {"nodeSelector": {"z": "1"}}),
        ({"tolerations": [{"key": "k"}]}, {"tolerations": [{"key": "k"}]}),
        ({"$setElementOrder/containers": [{"name": "b"}]}, {}),
    ],
)
def test_strategic_merge(patch: dict[str, Any], spec: dict[str, Any]) -> None:
    assert strategic_merge(schema_of(PODS), BEFORE, {"spec": patch}) == {"spec": BEFORE["spec"] | spec}


def test_json_merge_replaces_lists_and_removes_by_null() -> None:
    assert json_merge({"a": [1], "b": {"c": 1, "d": 2}}, {"a": [2], "b": {"c": None}}) == {"a": [2], "b": {"d": 2}}
