"""Tasks of runs, cleared and marked by hand."""

from __future__ import annotations

from typing import Literal

import msgspec

from trainflow.actions import runs as actions
from trainflow.actions.marking import mark_task, plan_mark
from trainflow.api.rest import airflow_shapes as shapes
from trainflow.api.rest.dag_runs import Note
from trainflow.api.rest.endpoints import ApiCall, DryRun, EndpointGroup, NoQuery
from trainflow.api.rest.paging import Text
from trainflow.api.rest.problems import not_understood
from trainflow.api.rest.task_instances import TASK, found_task, instance_of
from trainflow.insight.runs.runs import run_row
from trainflow.insight.runs.tasks import task_rows
from trainflow.metadata.queries.page_queries import MOST_COUNTED

changes = EndpointGroup("TaskInstance", is_airflows=True)


class ClearTasks(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tasks of the run `dag_run_id` that are to run again: `task_ids`, or what failed (`only_failed`), or all;
    `include_downstream`: and all that wait for them. A run stays what it was made of, and others are left alone: what
    is fixed to one value here is not done otherwise."""

    dag_run_id: Text
    task_ids: list[str | list[str | int]] | None = None
    only_failed: bool = True
    include_downstream: bool = False
    reset_dag_runs: Literal[True] = True
    include_upstream: Literal[False] = False
    include_future: Literal[False] = False
    include_past: Literal[False] = False
    only_running: Literal[False] = False
    prevent_running_task: Literal[False] = False
    run_on_latest_version: Literal[False] = False
    start_date: None = None
    end_date: None = None
    note: Note = None


@changes.post("/dags/{dag_id}/clearTaskInstances")
def clear_task_instances(call: ApiCall[NoQuery, ClearTasks]) -> shapes.TaskInstances:
    """Let tasks of a run run again, and all that wait for them."""
    body, dag_id = call.body, call.path["dag_id"]
    run = run_row(call.workspace, dag_id, body.dag_run_id)
    wanted = [_task_id(each) for each in body.task_ids or []]
    asked = actions.ClearRequest(
        runs=[run.run_id], tasks=wanted, only=not body.include_downstream, failed=body.only_failed
    )
    if body.dry_run:
        (cleared,) = actions.plan_clear(call.workspace, dag_id, asked)
    else:
        (cleared,) = actions.clear(call.workspace, dag_id, asked, call.now)
        if body.note is not None:
            actions.set_note(call.workspace, dag_id, run.run_id, body.note)
    found = [instance_of(each) for each in task_rows(call.workspace, dag_id, run.run_id, cleared.cleared)]
    return shapes.TaskInstances(
        task_instances=found,
        total_entries=len(found),
        total_entries_limit=MOST_COUNTED,
        next_cursor=None,
        previous_cursor=None,
    )


def _task_id(given: str | list[str | int]) -> str:
    """A task as Airflow's clients name one: by its id, or with the index -1: nothing is mapped."""
    if isinstance(given, str):
        return given
    if len(given) == 2 and isinstance(given[0], str) and given[1] == -1:
        return given[0]
    raise not_understood(f"task_ids: {given} names no task: give its id, or [id, -1]")


class MarkTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`new_state`: what the task is from now on. One that works on a chain is never marked as done; one at work may be
    marked as failed only. What waits for a task that is marked as done runs, also when it had ended."""

    new_state: Literal["success", "failed", "skipped"]
    note: Note = None
    include_upstream: Literal[False] = False
    include_downstream: Literal[False] = False
    include_future: Literal[False] = False
    include_past: Literal[False] = False


@changes.patch(f"{TASK}/dry_run", changes_nothing=True)
def patch_task_instance_dry_run(call: ApiCall[NoQuery, MarkTask]) -> shapes.TaskInstances:
    """Say which tasks a mark would change: the one that is marked, and those behind it that would run again."""
    path, body = call.path, call.body
    dag_id, run_id, task_id = path["dag_id"], path["dag_run_id"], path["task_id"]
    planned = plan_mark(call.workspace, dag_id, run_id, task_id, body.new_state)
    found = [instance_of(each) for each in task_rows(call.workspace, dag_id, run_id, [task_id, *planned.cleared])]
    return shapes.TaskInstances(
        task_instances=found,
        total_entries=len(found),
        total_entries_limit=MOST_COUNTED,
        next_cursor=None,
        previous_cursor=None,
    )


@changes.patch(TASK)
def patch_task_instance(call: ApiCall[NoQuery, MarkTask]) -> shapes.TaskInstances:
    """Mark a task of a run by hand."""
    path, body = call.path, call.body
    ids = path["dag_id"], path["dag_run_id"], path["task_id"]
    mark_task(call.workspace, *ids, body.new_state, call.now, note=body.note)
    return shapes.TaskInstances(
        task_instances=[instance_of(found_task(call))],
        total_entries=1,
        total_entries_limit=MOST_COUNTED,
        next_cursor=None,
        previous_cursor=None,
    )
