"""DAGs and their tasks."""

from __future__ import annotations

import msgspec

from trainflow.actions.dags import set_paused
from trainflow.api.rest import airflow_shapes as shapes
from trainflow.api.rest.endpoints import ApiCall, EndpointGroup, NoQuery
from trainflow.api.rest.paging import Paged, Text
from trainflow.api.rest.problems import not_understood
from trainflow.insight.runs.dags import DagRow, dag_row, dag_rows, dag_version
from trainflow.workspace.names import check_tasks

dags = EndpointGroup("DAG", is_airflows=True)


class DagQuery(Paged, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`dag_id_pattern`: a part of the id; `tags`: any of these; `exclude_stale`: without those that no file defines any
    more."""

    dag_id_pattern: Text | None = None
    tags: list[Text] = msgspec.field(default_factory=list)
    paused: bool | None = None
    exclude_stale: bool = True


class DagPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`is_paused`: nothing of it is started any more; what runs goes on to its end."""

    is_paused: bool


class DagPatchQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`update_mask`: as in Airflow; there is one field."""

    update_mask: list[Text] = msgspec.field(default_factory=list)


@dags.get("/dags")
def list_dags(call: ApiCall[DagQuery, None]) -> shapes.Dags:
    """List the DAGs that an engine has read, by id."""
    asked = call.query
    found = [each for each in dag_rows(call.workspace) if _is_asked_for(each, asked)]
    page = found[asked.offset : asked.offset + asked.limit]
    return shapes.Dags([shapes.dag_of(each.row, each.document, broken=each.is_broken) for each in page], len(found))


def _is_asked_for(found: DagRow, asked: DagQuery) -> bool:
    pattern = (asked.dag_id_pattern or "").strip("%").lower()
    return (
        pattern in found.row.dag_id.lower()
        and (not asked.tags or not set(asked.tags).isdisjoint(found.document.tags))
        and asked.paused in (None, found.row.is_paused)
        and not (asked.exclude_stale and found.row.missing_since is not None)
    )


@dags.get("/dags/{dag_id}")
def get_dag(call: ApiCall[NoQuery, None]) -> shapes.Dag:
    """Show a DAG."""
    found = dag_row(call.workspace, call.path["dag_id"])
    return shapes.dag_of(found.row, found.document, broken=found.is_broken)


@dags.patch("/dags/{dag_id}")
def patch_dag(call: ApiCall[DagPatchQuery, DagPatch]) -> shapes.Dag:
    """Pause a DAG, or let it go on."""
    if any(name != "is_paused" for name in call.query.update_mask):
        raise not_understood("update_mask: is_paused is all that can be changed")
    found = dag_row(call.workspace, call.path["dag_id"])
    set_paused(call.workspace, found.row.dag_id, paused=call.body.is_paused)
    found = dag_row(call.workspace, found.row.dag_id)
    return shapes.dag_of(found.row, found.document, broken=found.is_broken)


@dags.get("/dags/{dag_id}/details")
def get_dag_details(call: ApiCall[NoQuery, None]) -> shapes.DagDetails:
    """Show a DAG with its params and its version."""
    found = dag_row(call.workspace, call.path["dag_id"])
    version, active = dag_version(call.workspace, found)
    return shapes.dag_details_of(found.row, found.document, version, broken=found.is_broken, active=active)


@dags.get("/dags/{dag_id}/tasks")
def list_tasks(call: ApiCall[NoQuery, None]) -> shapes.Tasks:
    """List the tasks of a DAG, in the order of the DAG."""
    return shapes.tasks_of(dag_row(call.workspace, call.path["dag_id"]).document)


@dags.get("/dags/{dag_id}/tasks/{task_id}")
def get_task(call: ApiCall[NoQuery, None]) -> shapes.Task:
    """Show a task of a DAG."""
    document, task_id = dag_row(call.workspace, call.path["dag_id"]).document, call.path["task_id"]
    check_tasks([task_id], [task.task_id for task in document.tasks], f"DAG {document.dag_id}")
    return next(shapes.task_of(task, document) for task in document.tasks if task.task_id == task_id)
