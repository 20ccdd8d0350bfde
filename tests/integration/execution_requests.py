"""What a worker asks of the execution API, for its tests."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Select, Table, select

from tests.support.control_plane import ControlPlane
from trainflow.messages.execution_api import (
    Deferral,
    GetXCom,
    OutcomeState,
    XComItem,
    XComValues,
)
from trainflow.messages.workload import ExecuteTask

O = OutcomeState  # noqa: E741


DEFERRAL = Deferral("m.Trigger", {"x": 1}, "execute_complete", {"kept": True})


def xcom(key: str, value: Any) -> XComItem:
    return XComItem(key, msgspec.Raw(msgspec.json.encode(value)))


def pulled(
    plane: ControlPlane, work: ExecuteTask, key: str = "return_value", *tasks: str, **more: Any
) -> dict[str, Any]:
    reply = plane.service.handle(GetXCom(work.key, "d", work.run_id, list(tasks) or None, key, **more))
    assert isinstance(reply, XComValues)
    return {task: msgspec.json.decode(value) for task, value in reply.values.items()}


def everything(plane: ControlPlane) -> dict[str, list[Any]]:
    """All rows of all tables but leases, which a server renews, and the moments at which attempts were refused: to see
    that nothing has changed."""
    from trainflow.metadata.models import METADATA

    tables = [table for table in METADATA.sorted_tables if table.name != "service"]
    with plane.database.reading() as connection:
        return {table.name: [tuple(row) for row in connection.execute(_all_of(table))] for table in tables}


def _all_of(table: Table) -> Select[Any]:
    columns = [each for each in table.columns if each.name != "refused_at"]
    return select(*columns).order_by(*table.primary_key)
