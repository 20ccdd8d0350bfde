"""A reference to what another task will push; stands in a template field until the task runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from trainflow.authoring.arguments import NOTSET
from trainflow.authoring.graph import Linkable
from trainflow.errors import InputError, TaskError

if TYPE_CHECKING:
    from trainflow.authoring.context import Context
    from trainflow.authoring.dag import DAG
    from trainflow.authoring.operator import BaseOperator

RETURN_VALUE = "return_value"
#: exactly what `str(XComArg)` gives, so that f"{task.output}" in a template field is an edge as well
_WRITTEN_OUT = re.compile(r"\{\{ ti\.xcom_pull\(task_ids='([^']+)', key='[^']*'\) \}\}")


class XComArg(Linkable):
    """What `operator` pushes under `key`. `op.output["k"]` is the XCom of key `k` (Airflow's meaning: it does not look
    inside the return value; `multiple_outputs=True` pushes each entry of a returned dict under its own key)."""

    def __init__(self, operator: BaseOperator, key: str = RETURN_VALUE) -> None:
        self.operator = operator
        self.key = key

    def __getitem__(self, key: str) -> XComArg:
        if not isinstance(key, str):
            raise InputError(f"{self!r}[{key!r}]: a key is a string; the value itself is known only when the task runs")
        return XComArg(self.operator, key)

    def __iter__(self) -> NoReturn:
        # without it Python would call __getitem__(0), (1), … for ever
        raise TypeError(f"{self!r} cannot be iterated: its value is known only when the task runs")

    def __repr__(self) -> str:
        return f"XComArg({self.operator.task_id!r}, {self.key!r})"

    def __str__(self) -> str:
        return f"{{{{ ti.xcom_pull(task_ids='{self.operator.task_id}', key='{self.key}') }}}}"

    @property
    def node(self) -> BaseOperator:
        return self.operator

    @property
    def dag(self) -> DAG:
        return self.operator.dag

    def resolve(self, context: Context) -> Any:
        """The value. A task that returned nothing has the return value None; any other key must have been pushed."""
        value = context["ti"].xcom_pull(task_ids=self.operator.task_id, key=self.key, default=NOTSET)
        if value is not NOTSET:
            return value
        if self.key == RETURN_VALUE:
            return None
        raise TaskError(
            f"task {self.operator.task_id!r} pushed no XCom {self.key!r}. To pick an entry of a returned dict, "
            "give that task multiple_outputs=True"
        )

    def as_setup(self) -> XComArg:
        """Mark the task as a setup; see `BaseOperator.as_setup`."""
        self.operator.as_setup()
        return self

    def as_teardown(self, *, setups: Any = None) -> XComArg:
        """Mark the task as a teardown; see `BaseOperator.as_teardown`."""
        self.operator.as_teardown(setups=setups)
        return self


def references(value: Any) -> Iterator[XComArg | str]:
    """Every XComArg inside `value` (lists, tuples, dicts), and the task id of each one written out in a string."""
    if isinstance(value, XComArg):
        yield value
    elif isinstance(value, str):
        if "ti.xcom_pull(" in value:
            yield from _WRITTEN_OUT.findall(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)


def holds_xcom_arg(value: Any) -> bool:
    """Whether an XComArg stands somewhere in `value`."""
    return any(isinstance(found, XComArg) for found in references(value))
