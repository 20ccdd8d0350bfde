"""A form of any value that people can read and that is the same in every process: no addresses, no hash order.

Without secrets: documents are stored, logged and displayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import partial
from pathlib import PurePath
from typing import Any

import msgspec

from trainflow.identifiers import canonical_json, digest
from trainflow.observability.redaction import MASK, is_secret_key, redact_text

_TEXT_CHARACTERS = 8192


def stable(value: Any, dag_file: str | None = None) -> Any:
    """JSON that says what `value` is. What is written in `dag_file` is named without its module, whose name may depend
    on how the file was loaded."""
    if value is None or isinstance(value, bool | int):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    simple = _simple(value)
    if simple is not None:
        return simple
    if isinstance(value, Mapping):
        return {str(key): _entry(str(key), item, dag_file) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [stable(item, dag_file) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((stable(item, dag_file) for item in value), key=canonical_json)
    if isinstance(value, msgspec.Struct) or (hasattr(value, "__dataclass_fields__") and not isinstance(value, type)):
        names = value.__struct_fields__ if isinstance(value, msgspec.Struct) else value.__dataclass_fields__
        fields = {name: getattr(value, name) for name in names}
        return stable({name: item for name, item in fields.items() if item is not None}, dag_file)
    if isinstance(value, partial):
        return {
            "function": _name(value.func, dag_file),
            "args": stable(value.args, dag_file),
            "kwargs": stable(value.keywords, dag_file),
        }
    if isinstance(value, type) or callable(value):
        return _name(value, dag_file)
    return f"<{_name(type(value), dag_file)}>"


def _simple(value: Any) -> str | float | None:
    """Values that are written as one string or number."""
    from trainflow.authoring.xcom_arg import XComArg

    if isinstance(value, Enum):
        return stable(value.value)  # type: ignore[no-any-return]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, PurePath | XComArg):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return None


def _text(value: str) -> str:
    """The string without secrets; of a very long one, the beginning and the digest of the whole."""
    text = redact_text(value)
    return text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]}... ({digest(value.encode())})"


def _entry(key: str, value: Any, dag_file: str | None) -> Any:
    if key == "storage_options" and isinstance(value, Mapping):
        return {str(name): MASK for name in value}
    if value is not None and not isinstance(value, bool) and is_secret_key(key):
        return MASK
    return stable(value, dag_file)


def _name(thing: Callable[..., Any] | type, dag_file: str | None) -> str:
    """`module:qualified.name`; of an instance that can be called, the name of its type."""
    if not hasattr(thing, "__qualname__"):
        return f"<{_name(type(thing), dag_file)}>"
    module = getattr(thing, "__module__", None) or ""
    code = getattr(thing, "__code__", None)
    if dag_file is not None and dag_file in (getattr(code, "co_filename", None), _file_of(module)):
        return thing.__qualname__
    return f"{module}:{thing.__qualname__}"


def _file_of(module: str) -> str | None:
    import sys

    return getattr(sys.modules.get(module), "__file__", None)
