"""Patches: JSON merge, and Kubernetes' strategic merge, whose lists are merged by the keys that the schemas name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainflow.testing.kubernetes_api.resources import definitions

_REF = "#/$defs/"


def json_merge(item: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(item) if isinstance(item, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = json_merge(merged.get(key), value)
    return merged


def strategic_merge(schema: Mapping[str, Any], item: Any, patch: Any) -> Any:
    """The object with the patch of a client that knows its schema."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    fields = _resolved(schema).get("properties", {})
    merged = dict(item) if isinstance(item, dict) else {}
    for key in patch.get("$retainKeys", ()) and [key for key in merged if key not in patch["$retainKeys"]]:
        del merged[key]
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            merged[name] = [each for each in merged.get(name, ()) if each not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged_field(fields.get(key, {}), merged.get(key), value)
    return merged


def _merged_field(field: Mapping[str, Any], before: Any, patch: Any) -> Any:
    if not isinstance(patch, list):
        return strategic_merge(field, before, patch)
    if "merge" not in field.get("x-kubernetes-patch-strategy", "").split(","):
        return patch
    key = field.get("x-kubernetes-patch-merge-key")
    if key is None:
        return [*(before or ()), *(each for each in patch if each not in (before or ()))]
    return _merged_list(field.get("items", {}), key, before or [], patch)


def _merged_list(schema: Mapping[str, Any], key: str, before: list[Any], patch: list[Any]) -> list[Any]:
    merged = {each[key]: each for each in before}
    for each in patch:
        if each.get("$patch") == "delete":
            merged.pop(each[key], None)
        else:
            merged[each[key]] = strategic_merge(schema, merged.get(each[key]), each)
    return list(merged.values())


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return definitions()[schema["$ref"].removeprefix(_REF)] if "$ref" in schema else schema
