"""Pod templates: a YAML file with a pod that ours is laid over, how that is done, and what is wrong with one.

A template is a Pod, or the part of one that matters: `spec`, and `metadata` with labels and annotations. Its container
for the attempt is called `trainflow`; what else it has runs beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainflow.errors import InputError
from trainflow.identifiers import did_you_mean

#: name of the container that runs the attempt
CONTAINER = "trainflow"
#: lists that are merged by what names their parts
_NAMED_BY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
}
#: what is ours to say
_OURS = ("name", "namespace", "generateName", "ownerReferences", "uid", "resourceVersion")
_QUANTITIES = frozenset({"limits", "requests", "overhead", "sizeLimit", "divisor"})
_TOP = ("apiVersion", "kind", "metadata", "spec")
Problem = tuple[tuple[str | int, ...], str]


def merged(under: Any, over: Any, key: str = "") -> Any:
    """Lay one value over another: mappings key by key, lists of named parts part by part, all else is replaced."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        return {name: merged(under.get(name), over.get(name, under.get(name)), name) for name in {**under, **over}}
    if isinstance(under, list) and isinstance(over, list) and key in _NAMED_BY:
        parts = {part[_NAMED_BY[key]]: part for part in under}
        for part in over:
            name = part[_NAMED_BY[key]]
            parts[name] = merged(parts.get(name), part)
        return list(parts.values())
    return over


def read_template(path: Path, shown: str) -> dict[str, Any]:
    """The template in a file. Raises InputError naming all that is wrong with it, each with its line; `shown`: the file
    as people name it."""
    import yaml

    try:
        text = path.read_text()
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark else shown
        raise InputError(f"{where}: no valid YAML: {error.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{shown}: the pod template cannot be read: {said}") from None
    # as it will be sent: a date is no text
    problems = list(problems_of(content))
    if problems:
        lines = _Lines(text)
        raise InputError("; ".join(f"{shown}:{lines.of(at)}: {_dotted(at)}{said}" for at, said in problems))
    found: dict[str, Any] = json.loads(json.dumps(content))
    return found


def problems_of(template: Any) -> Iterator[Problem]:
    """What is wrong with a template: where, and what."""
    if not isinstance(template, dict):
        yield (), "a pod template is a mapping with 'spec'"
        return
    for key in template:
        if key not in _TOP:
            yield (key,), f"unknown field{did_you_mean(str(key), _TOP, 'known')}"
    if template.get("kind") not in (None, "Pod"):
        yield ("kind",), f"a pod template is a Pod, and this is a {template['kind']}"
        return
    metadata = template.get("metadata")
    for key in _OURS:
        if isinstance(metadata, dict) and key in metadata:
            yield ("metadata", key), "is given by trainflow: leave it out"
    of_fields = list(_problems_of_fields(template))
    yield from of_fields
    if not of_fields:
        yield from _problems_of_spec(template.get("spec") or {})


def _problems_of_spec(spec: Mapping[str, Any]) -> Iterator[Problem]:
    if spec.get("restartPolicy") not in (None, "Never"):
        yield ("spec", "restartPolicy"), "must be Never: what is tried again is decided by the scheduler"
    for list_name in ("containers", "initContainers", "volumes"):
        for index, part in enumerate(spec.get(list_name) or ()):
            if not part.get("name"):
                yield ("spec", list_name, index), "has no name"
    for key, value in (spec.get("nodeSelector") or {}).items():
        if not isinstance(value, str):
            yield ("spec", "nodeSelector", key), f"must be text, and is {value!r}: put it in quotes"
    names = [container.get("name") for container in spec.get("containers") or ()]
    if names and CONTAINER not in names:
        yield ("spec", "containers"), f"the container that runs the attempt must be called '{CONTAINER}'"
    for index, container in enumerate(spec.get("containers") or ()):
        for key in ("command", "args"):
            if container.get("name") == CONTAINER and key in container:
                yield ("spec", "containers", index, key), "is given by trainflow: leave it out"


def _problems_of_fields(template: Mapping[str, Any]) -> Iterator[Problem]:
    """Unknown fields and wrong types, by the models of lightkube; none where that is not installed: the cluster tells
    them then."""
    try:
        from lightkube.models.core_v1 import Pod
        from msgspec.inspect import type_info
    except ImportError:
        return
    yield from _fields(type_info(Pod), dict(template), ())


def _fields(kind: Any, value: Any, at: tuple[str | int, ...]) -> Iterator[Problem]:
    from msgspec import inspect

    if isinstance(kind, inspect.UnionType):
        kinds = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
        if value is None or len(kinds) != 1:
            return
        kind = kinds[0]
    if isinstance(kind, inspect.ListType):
        if not isinstance(value, list):
            yield at, "must be a list"
            return
        for index, each in enumerate(value):
            yield from _fields(kind.item_type, each, (*at, index))
    elif not isinstance(kind, inspect.StructType | inspect.DictType):
        yield from _scalar(kind, value, at)
    elif not isinstance(value, dict):
        yield at, "must be a mapping"
    elif isinstance(kind, inspect.StructType):
        yield from _fields_of_struct(kind, value, at)
    else:
        for name, each in value.items():
            if not _is_quantity(each, at):
                yield from _fields(kind.value_type, each, (*at, name))


def _fields_of_struct(kind: Any, value: dict[Any, Any], at: tuple[str | int, ...]) -> Iterator[Problem]:
    known = {each.encode_name: each.type for each in kind.fields}
    for name, each in value.items():
        if name in known:
            yield from _fields(known[name], each, (*at, name))
        elif at:
            yield (*at, name), f"unknown field{did_you_mean(str(name), sorted(known), 'known')}"


def _is_quantity(value: Any, at: tuple[str | int, ...]) -> bool:
    """Whether it is a number where Kubernetes takes amounts: `nvidia.com/gpu: 1`."""
    return at[-1] in _QUANTITIES and isinstance(value, int | float) and not isinstance(value, bool)


def _scalar(kind: Any, value: Any, at: tuple[str | int, ...]) -> Iterator[Problem]:
    from msgspec import inspect

    if isinstance(kind, inspect.StrType) and not isinstance(value, str) and not _is_quantity(value, at):
        yield at, f"must be text, and is {value!r}: put it in quotes"
    elif isinstance(kind, inspect.BoolType) and not isinstance(value, bool):
        yield at, f"must be true or false, and is {value!r}"
    elif isinstance(kind, inspect.IntType) and (isinstance(value, bool) or not isinstance(value, int)):
        yield at, f"must be a whole number, and is {value!r}"


def _dotted(at: tuple[str | int, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).removeprefix(".")
    return f"{path}: " if path else ""


class _Lines:
    """Where the values of a YAML text stand."""

    def __init__(self, text: str) -> None:
        import yaml

        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def of(self, at: tuple[str | int, ...]) -> str:
        """Line and column of a key, or of what is nearest around it."""
        import yaml

        node, mark = self._root, getattr(self._root, "start_mark", None)
        for part in at:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                pair = (node.value[part], node.value[part])
            else:
                pair = None
            if pair is None:
                break
            mark, node = pair[0].start_mark, pair[1]
        return f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
