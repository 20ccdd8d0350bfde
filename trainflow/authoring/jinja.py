"""The Jinja environments templates are rendered in. Imported only by a task whose fields hold an expression.

Compiling a template evaluates nothing. By default Jinja folds constants while it compiles: it calls the filters of a
DAG and computes `9 ** 9 ** 9`, and it would do so in the process that all attempts are forked from. Without its
optimizer, and with a `finalize` that takes the context, the compiler only translates.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jinja2 import StrictUndefined, Undefined, pass_context
from jinja2.nativetypes import NativeEnvironment as _JinjaNative
from jinja2.sandbox import SandboxedEnvironment

_DATE_FILTERS = {
    "ds": lambda moment: moment.strftime("%Y-%m-%d"),
    "ds_nodash": lambda moment: moment.strftime("%Y%m%d"),
    "ts": datetime.isoformat,
    "ts_nodash": lambda moment: moment.strftime("%Y%m%dT%H%M%S"),
    "ts_nodash_with_tz": lambda moment: moment.isoformat().replace("-", "").replace(":", ""),
}


@pass_context
def _defined(_context: Any, value: Any) -> Any:
    """Native rendering hands an undefined value through as an object: touch it, so that it raises."""
    if isinstance(value, Undefined):
        str(value)
    return value


class TextEnvironment(SandboxedEnvironment):
    """Sandboxed; renders text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"undefined": StrictUndefined, "finalize": _defined, "optimized": False, **options})
        self.filters.update(_DATE_FILTERS)


class NativeEnvironment(TextEnvironment, _JinjaNative):
    """Sandboxed; an expression that is the whole field gives the object itself (`render_template_as_native_obj`)."""
