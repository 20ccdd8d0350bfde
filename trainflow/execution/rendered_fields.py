"""Template fields as an attempt has rendered them, fit to be kept and shown: without secrets, and of bounded size."""

from __future__ import annotations

from typing import Any

import msgspec

from trainflow.authoring.operator import BaseOperator
from trainflow.observability.redacted_output import without_secrets
from trainflow.observability.redaction import presentable, redact

#: characters of a text, and of anything else, as JSON: most of that is an XCom, which is kept as such
_LONGEST_TEXT, _LONGEST_VALUE = 4_000, 1_000


def rendered_fields(task: BaseOperator) -> dict[str, Any]:
    """The template fields of a task that has rendered them. One that is too long is cut, and is a text then."""
    attributes = vars(task)
    given = {field: attributes.get(field) for field in task.template_fields}
    return {field: _shown(value) for field, value in given.items() if value is not None}


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return presentable(without_secrets(value), _LONGEST_TEXT)
    if isinstance(value, bool | int | float):
        return value
    try:
        text = without_secrets(msgspec.json.encode(value, enc_hook=str).decode())
    except Exception as error:
        # an object of the task's own, which says so itself
        return f"{type(value).__name__} cannot be written as JSON: {type(error).__name__}"
    if len(text) > _LONGEST_VALUE:
        return presentable(text, _LONGEST_VALUE)
    return redact(msgspec.json.decode(text))
