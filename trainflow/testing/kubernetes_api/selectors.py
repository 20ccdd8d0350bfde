"""Which objects a label or a field selector means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from trainflow.testing.kubernetes_api.status import bad_request

Selector = Callable[[Mapping[str, Any]], bool]

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<word>in|notin)\s+\((?P<values>[^)]*)\)")
_EQUAL = re.compile(rf"(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*)")
_THERE = re.compile(rf"(?P<no>!?)\s*(?P<key>{_KEY})")
#: fields that may be selected by, of every kind and of pods
_FIELDS = ("metadata.name", "metadata.namespace", "status.phase", "spec.nodeName", "spec.restartPolicy", "type")


def label_selector(text: str) -> Selector:
    """The selector that is written as `a=b,c!=d,e in (f,g),h,!i`. Raises ApiStatus (400) for what is none."""
    tests = [_label_test(part) for part in _parts(text)]

    def matches(item: Mapping[str, Any]) -> bool:
        labels = item["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _parts(text: str) -> list[str]:
    """The requirements: split at commas that are not inside of brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _label_test(part: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.fullmatch(part):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["word"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.fullmatch(part):
        key, value = found["key"], found["value"]
        if found["sign"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _THERE.fullmatch(part):
        key, absent = found["key"], bool(found["no"])
        return lambda labels: (key in labels) is not absent
    raise bad_request(f"unable to parse requirement: {part!r} is no label selector")


def field_selector(text: str) -> Selector:
    """The selector that is written as `metadata.name=a,status.phase!=Running`. Raises ApiStatus (400)."""
    tests = [_field_test(part) for part in _parts(text)]
    return lambda item: all(test(item) for test in tests)


def _field_test(part: str) -> Selector:
    found = re.fullmatch(r"([\w.]+)\s*(==|=|!=)\s*(.*)", part)
    if found is None:
        raise bad_request(f"invalid field selector: {part!r}")
    path, sign, value = found.groups()
    if path not in _FIELDS:
        raise bad_request(f'field label not supported: "{path}"')

    def matches(item: Mapping[str, Any]) -> bool:
        here: Any = item
        for key in path.split("."):
            here = (here or {}).get(key)
        return (str(here or "") == value) is (sign != "!=")

    return matches
