"""A parameter of a DAG or a task: a default and a schema, overridden by the `conf` of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainflow.authoring import arguments
from trainflow.authoring.arguments import NOTSET
from trainflow.authoring.checked_call import CheckedCall
from trainflow.errors import InputError
from trainflow.identifiers import canonical_json
from trainflow.param_schema import Schema, check_json, check_schema, resolve


class Param(metaclass=CheckedCall):
    """`Param(10, type="integer", minimum=1)`. Without a default, every run must give it in its conf.

    The keywords are those of `trainflow.param_schema`; any other is refused here. The default is checked against the
    schema when a run is triggered, like every other value, so `Param(None, type="string")` means: to be given.
    """

    def __init__(self, default: Any = NOTSET, description: str | None = None, **schema: Any) -> None:
        """Raises InputError for a schema that is malformed and a default that is not JSON."""
        arguments.optional_text(description, "Param: description")
        check_schema(schema, "Param")
        if default is not NOTSET:
            check_json(default, "default of Param")
        check_json(schema, "schema of Param")
        described = {} if description is None else {"description": description}
        given = {} if default is NOTSET else {"default": default}
        # as JSON has it (lists, no tuples), and not shared with the caller
        self.schema: dict[str, Any] = json.loads(canonical_json({**schema, **described, **given}))

    def __repr__(self) -> str:
        return f"Param({self.schema!r})"

    def resolve(self, value: Any = NOTSET) -> Any:
        """`value`, or the default. Raises ParamValidationError."""
        return resolve({"value": self.schema}, {} if value is NOTSET else {"value": value})["value"]


def schemas_of(params: Mapping[str, Any]) -> dict[str, Schema]:
    """Name → schema with its default; a plain value is a Param with that default and no conditions."""
    result: dict[str, Schema] = {}
    for name, value in params.items():
        if not isinstance(name, str):
            raise InputError(f"params: {name!r} is no name")
        if not isinstance(value, Param):
            check_json(value, f"param {name!r}")
            value = Param(value)
        result[name] = value.schema
    return result
