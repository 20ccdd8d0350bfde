"""Kinds of objects that the server keeps, where they are found in its URLs, their published schemas, and what is wrong
with an object by these: strictly, as with `fieldValidation=Strict`.

Patches: JSON merge, and Kubernetes' strategic merge, whose lists are merged by the keys that the schemas name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple


class Resource(NamedTuple):
    """A kind of objects. `plural`: its name in URLs."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """What an object of it says in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name among those of all groups: `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


RBAC = "rbac.authorization.k8s.io"
PODS = Resource("", "v1", "pods", "Pod", short=("po",))
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",))
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", short=("cm",))
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", short=("quota",))
RESOURCES = (
    PODS,
    NAMESPACES,
    SECRETS,
    CONFIG_MAPS,
    QUOTAS,
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Resource("", "v1", "services", "Service", short=("svc",)),
    Resource("", "v1", "events", "Event", short=("ev",)),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
    Resource("apps", "v1", "deployments", "Deployment", short=("deploy",)),
    Resource("batch", "v1", "jobs", "Job"),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",)),
    Resource(RBAC, "v1", "roles", "Role"),
    Resource(RBAC, "v1", "rolebindings", "RoleBinding"),
)


class RequestTarget(NamedTuple):
    """What the path of a URL names. `namespace` None: all of them; `name` None: the list."""

    resource: Resource
    namespace: str | None
    name: str | None = None
    subresource: str | None = None


def target_of(path: str) -> RequestTarget | None:
    """What a path such as `/api/v1/namespaces/a/pods/b/log` names; None: nothing."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        return None
    for resource in RESOURCES:
        if (resource.group, resource.version, resource.plural) == (group, version, rest[0]):
            return RequestTarget(resource, namespace, *rest[1:])
    return None


#: version of the schemas, and what the server says of itself
VERSION = "1.37.0"
_PACKAGE = "kubernetes_validate"
_REF = "#/$defs/"
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


@cache
def definitions() -> dict[str, dict[str, Any]]:
    """All schemas by name, as kubernetes-validate brings them. Raises ModuleNotFoundError without that package."""
    folder = files(_PACKAGE).joinpath("kubernetes-json-schema", f"v{VERSION}-local-strict")
    found: dict[str, dict[str, Any]] = json.loads(folder.joinpath("_definitions.json").read_text())["$defs"]
    return found


@cache
def schema_of(resource: Resource) -> dict[str, Any]:
    """The schema of a kind of objects."""
    wanted = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    for schema in definitions().values():
        if wanted in schema.get("x-kubernetes-group-version-kind", ()):
            return schema
    raise LookupError(f"no schema of {resource.kind}")


def unknown_and_wrong(resource: Resource, item: Mapping[str, Any]) -> list[str]:
    """What is wrong with an object, as the server says it: `unknown field "spec.nope"`."""
    return list(_problems(schema_of(resource), item, ""))


def _problems(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = definitions()[schema["$ref"].removeprefix(_REF)]
    if "oneOf" in schema:
        if not any(_has_type(choice, value) for choice in schema["oneOf"]):
            yield f'field "{path}" is of type {type(value).__name__}'
        return
    if not _has_type(schema, value):
        yield f'field "{path}" must be of type {_named(schema)}, and is {json.dumps(value)[:60]}'
    elif value is None:
        return
    elif "enum" in schema and value not in schema["enum"]:
        yield f'field "{path}" must be one of {schema["enum"]}'
    elif isinstance(value, dict):
        yield from _problems_of_fields(schema, value, path)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _problems(schema.get("items", {}), each, f"{path}[{index}]")


def _problems_of_fields(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    prefix = f"{path}." if path else ""
    for name, each in value.items():
        if name in known:
            yield from _problems(known[name], each, f"{prefix}{name}")
        elif others is False:
            yield f'unknown field "{prefix}{name}"'
        elif isinstance(others, dict):
            yield from _problems(others, each, f"{prefix}{name}")
    for name in schema.get("required", ()):
        if name not in value:
            yield f'field "{prefix}{name}" is required'


def _has_type(schema: Mapping[str, Any], value: Any) -> bool:
    types = schema.get("type")
    if types is None:
        return True
    names = [types] if isinstance(types, str) else types
    if isinstance(value, bool):
        return "boolean" in names
    return isinstance(value, tuple(each for name in names for each in _TYPES[name]))


def _named(schema: Mapping[str, Any]) -> str:
    types = schema["type"]
    return " or ".join(name for name in ([types] if isinstance(types, str) else types) if name != "null")


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
