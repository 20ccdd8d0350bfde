"""Runs of DAGs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from trainflow.actions import runs as actions
from trainflow.api.rest import airflow_shapes as shapes
from trainflow.api.rest.endpoints import NDJSON, ApiCall, DryRun, EndpointGroup, NoQuery, Polled
from trainflow.api.rest.paging import CursorPaged, Text
from trainflow.api.rest.problems import RequestRefused, not_understood
from trainflow.insight.runs.dags import dag_row
from trainflow.insight.runs.pages import runs_page
from trainflow.insight.runs.runs import run_row
from trainflow.metadata.queries.page_queries import MOST_COUNTED, Between, RunFilter
from trainflow.states import RUN_FINISHED, DagRunState, TriggeredBy

runs = EndpointGroup("DagRun", is_airflows=True)

#: stands for every DAG, and for every run
ANY = "~"
Note = Annotated[str, Meta(max_length=1000)] | None
State = Literal["queued", "running", "success", "failed"]


class StartedAndEnded(CursorPaged, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When something began and ended; with a time zone."""

    start_date_gte: datetime | None = None
    start_date_gt: datetime | None = None
    start_date_lte: datetime | None = None
    start_date_lt: datetime | None = None
    end_date_gte: datetime | None = None
    end_date_gt: datetime | None = None
    end_date_lte: datetime | None = None
    end_date_lt: datetime | None = None


class DagRunQuery(StartedAndEnded, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`state` and `run_id_prefix_pattern` are found by index; the others look at the runs in their order."""

    state: list[State] = msgspec.field(default_factory=list)
    run_type: list[Text] = msgspec.field(default_factory=list)
    run_id_prefix_pattern: Text | None = None
    run_after_gte: datetime | None = None
    run_after_gt: datetime | None = None
    run_after_lte: datetime | None = None
    run_after_lt: datetime | None = None
    logical_date_gte: datetime | None = None
    logical_date_gt: datetime | None = None
    logical_date_lte: datetime | None = None
    logical_date_lt: datetime | None = None


#: what Airflow calls a moment → the column
_MOMENTS = {
    "run_after": "run_after",
    "logical_date": "logical_date",
    "start_date": "started_at",
    "end_date": "ended_at",
}
_BOUNDS = ("gte", "gt", "lte", "lt")


def moments_of(query: Any, moments: dict[str, str]) -> tuple[tuple[str, Between], ...]:
    """The columns that a query gives bounds of."""
    found = (
        (column, Between(*(aware(getattr(query, f"{name}_{bound}")) for bound in _BOUNDS)))
        for name, column in moments.items()
    )
    return tuple(each for each in found if each[1] != Between())


def aware(moment: datetime | None) -> datetime | None:
    """A moment as it was given. Raises RequestRefused where it names no time zone."""
    if moment is not None and moment.tzinfo is None:
        raise not_understood(f"{moment.isoformat()} names no time zone: write Z behind it, for UTC")
    return moment


class TriggerBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run that is asked for. `dag_run_id`: by default manual__<time>_<random>; `conf` has to satisfy the params of
    the DAG; `run_after`: it does not start before. The same asked twice is one run."""

    dag_run_id: Text | None = None
    logical_date: datetime | None = None
    run_after: datetime | None = None
    conf: dict[str, Any] | None = None
    note: Note = None


class DagRunPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`state`: `failed` ends a run that has not ended, `queued` lets it run again; a run is never marked as a success,
    since that is what its tasks have to say. `note`: null takes it away."""

    state: Literal["queued", "success", "failed"] | msgspec.UnsetType = msgspec.UNSET
    note: Note | msgspec.UnsetType = msgspec.UNSET


class UpdateMask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`update_mask`: the fields of the body that count; by default those that are in it."""

    update_mask: list[Literal["state", "note"]] = []


class ClearRun(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`only_failed`: only tasks that failed, and all that wait for them. The run stays what it was made of:
    `run_on_latest_version` and `only_new` are not done."""

    only_failed: bool = False
    only_new: Literal[False] = False
    run_on_latest_version: Literal[False] = False
    note: Note = None


class ClearedDagRun(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that run again, or would."""

    dag_id: str
    dag_run_id: str
    state: str
    task_ids: list[str]
    dry_run: bool


class CancelRun(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`note`: why."""

    note: Annotated[str, Meta(min_length=1, max_length=1000)] = "cancelled through the API"


class CancelledRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was ended, or would be: `failing` are tasks at work, which are told to stop, `skipped` those that
    never run."""

    dag_run: shapes.DagRun
    failing: list[str]
    skipped: list[str]
    dry_run: bool


class WaitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`interval`: seconds between two looks."""

    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0


class WaitLine(msgspec.Struct, frozen=True):
    """Where the run is."""

    state: str
    duration: float | None


@runs.get("/dags/{dag_id}/dagRuns")
def list_dag_runs(call: ApiCall[DagRunQuery, None]) -> shapes.DagRuns:
    """List the runs of a DAG, or of all (`~`), in the order in which they were made.

    A long list is read with a cursor: an empty one first, then `next_cursor` of each answer.
    """
    query = call.query
    which = RunFilter(
        dag_id=_dag_id(call),
        run_id_prefix=query.run_id_prefix_pattern,
        states=tuple(query.state),
        run_types=tuple(query.run_type),
        moments=moments_of(query, _MOMENTS),
    )
    found = runs_page(call.workspace, which, query.page)
    return shapes.DagRuns(
        dag_runs=[shapes.listed_run(row) for row in found.rows],
        total_entries=found.total,
        total_entries_limit=MOST_COUNTED,
        next_cursor=found.after,
        previous_cursor=found.before,
    )


def _dag_id(call: ApiCall[Any, Any]) -> str | None:
    dag_id = call.path["dag_id"]
    return None if dag_id == ANY else str(dag_row(call.workspace, dag_id).row.dag_id)


@runs.post("/dags/{dag_id}/dagRuns")
def trigger_dag_run(call: ApiCall[NoQuery, TriggerBody]) -> shapes.DagRun:
    """Queue a run.

    The same `dag_run_id` with the same conf is the same run: the answer is what it is now. With another conf it is
    refused (409). The trace of W3C's header `traceparent` is continued by that of the run.
    """
    body, dag_id = call.body, dag_row(call.workspace, call.path["dag_id"]).row.dag_id
    asked = actions.RunRequest(
        conf=body.conf or {},
        run_id=body.dag_run_id,
        logical_date=aware(body.logical_date),
        run_after=aware(body.run_after),
        note=body.note,
        triggered_by=TriggeredBy.REST_API,
        or_existing=True,
        traceparent=call.traceparent,
    )
    done = actions.trigger(call.workspace, dag_id, asked, call.now)
    return _run(call, done.run.run_id)


def _run(call: ApiCall[Any, Any], run_id: str | None = None) -> shapes.DagRun:
    dag_id = call.path["dag_id"]
    return shapes.run_of(run_row(call.workspace, dag_id, run_id or call.path["dag_run_id"]))


@runs.get("/dags/{dag_id}/dagRuns/{dag_run_id}")
def get_dag_run(call: ApiCall[NoQuery, None]) -> shapes.DagRun:
    """Show a run."""
    return _run(call)


@runs.patch("/dags/{dag_id}/dagRuns/{dag_run_id}")
def patch_dag_run(call: ApiCall[UpdateMask, DagRunPatch]) -> shapes.DagRun:
    """End a run as failed, let it run again, or say something of it."""
    run, mask = _run(call), call.query.update_mask
    state = call.body.state if not mask or "state" in mask else msgspec.UNSET
    note = call.body.note if not mask or "note" in mask else msgspec.UNSET
    if state == "success":
        raise RequestRefused(
            409,
            "NeverMarked",
            "a run is not marked as a success: what its tasks have not done was not done",
            "mark the tasks that are meant (PATCH …/taskInstances/{task_id}), or clear them",
        )
    if state == "failed":
        words = note if isinstance(note, str) and note else "marked as failed through the API"
        actions.cancel(call.workspace, run.dag_id, run.dag_run_id, call.now, note=words)
    if state == "queued":
        actions.clear(call.workspace, run.dag_id, actions.ClearRequest(runs=[run.dag_run_id]), call.now)
    if note is not msgspec.UNSET:
        actions.set_note(call.workspace, run.dag_id, run.dag_run_id, note)
    return _run(call)


@runs.delete("/dags/{dag_id}/dagRuns/{dag_run_id}")
def delete_dag_run(call: ApiCall[NoQuery, None]) -> None:
    """Forget a run that has ended. What it trained stays in its ledger, its logs stay where they are."""
    run = _run(call)
    actions.delete(call.workspace, run.dag_id, run.dag_run_id)


@runs.post("/dags/{dag_id}/dagRuns/{dag_run_id}/clear")
def clear_dag_run(call: ApiCall[NoQuery, ClearRun]) -> ClearedDagRun:
    """Let a run run again, whole or what failed of it."""
    run = _run(call)
    asked = actions.ClearRequest(runs=[run.dag_run_id], failed=call.body.only_failed)
    if call.body.dry_run:
        (cleared,) = actions.plan_clear(call.workspace, run.dag_id, asked)
    else:
        (cleared,) = actions.clear(call.workspace, run.dag_id, asked, call.now)
        if call.body.note is not None:
            actions.set_note(call.workspace, run.dag_id, run.dag_run_id, call.body.note)
    return ClearedDagRun(
        dag_id=run.dag_id,
        dag_run_id=run.dag_run_id,
        state=run.state if call.body.dry_run else cleared.state,
        task_ids=cleared.cleared,
        dry_run=call.body.dry_run,
    )


@runs.get("/dags/{dag_id}/dagRuns/{dag_run_id}/wait", media=(NDJSON,))
def wait_for_dag_run(call: ApiCall[WaitQuery, None]) -> WaitLine:
    """Wait for the end of a run: a line at each look, the last one says how it ended."""
    _run(call)

    def look() -> tuple[bytes, bool]:
        run = _run(call)
        line = msgspec.json.encode(WaitLine(run.state, run.duration)) + b"\n"
        return line, DagRunState(run.state) in RUN_FINISHED

    return Polled(NDJSON, look, call.query.interval)  # type: ignore[return-value]


own_runs = EndpointGroup("DagRun")


@own_runs.post("/dags/{dag_id}/dagRuns/{dag_run_id}/cancel")
def cancel_dag_run(call: ApiCall[NoQuery, CancelRun]) -> CancelledRun:
    """End a queued or running run as failed: what it runs is told to stop, nothing is triggered any more."""
    run = _run(call)
    plan = actions.plan_cancel(call.workspace, run.dag_id, run.dag_run_id, call.now)
    if not call.body.dry_run:
        actions.cancel(call.workspace, run.dag_id, run.dag_run_id, call.now, note=call.body.note)
    return CancelledRun(dag_run=_run(call), failing=plan.failing, skipped=plan.skipped, dry_run=call.body.dry_run)
