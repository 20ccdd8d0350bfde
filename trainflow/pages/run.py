"""One run: its tasks as a graph and over time, a task with its attempts, what one printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from trainflow.actions.marking import possible_marks
from trainflow.errors import InputError
from trainflow.insight.runs.logs import WholeLog, log_source
from trainflow.insight.runs.runs import RunDetail, list_runs, run_detail, run_row
from trainflow.insight.runs.tasks import AttemptSummary, TaskDetail, TaskSummary, attempt_log, has_ended, task_detail
from trainflow.messages.execution_api import MetricCurves
from trainflow.metadata.queries import attempt_queries, curve_queries, run_queries, task_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.observability.redaction import redact
from trainflow.pages.curves import progress_charts
from trainflow.pages.downloads import download
from trainflow.pages.gantt import AttemptSpan, gantt
from trainflow.pages.graph import graph
from trainflow.pages.log_text import log_markup
from trainflow.pages.site import Answer, Site
from trainflow.serialization.document import DagDocument
from trainflow.states import FINISHED

#: runs in a page
_RUNS = 100
#: attempts of a run whose curves are drawn, the newest: as many as there are colours
_MOST_LINES = 4
#: of a log, so many bytes are shown and sent at a time: the end of a longer one
_LOG_BYTES = 128 * 1024


def runs(site: Site, request: Request) -> Answer:
    """Runs of all DAGs, the newest first, in a state or of a DAG."""
    dag_id, state = request.query_params.get("dag") or None, request.query_params.get("state") or None
    listing = list_runs(site.workspace, dag_id, site.now, state=state, limit=_RUNS)
    values = {"title": "Runs", "runs": listing.runs, "dag": dag_id or "", "state": state or "", "most": _RUNS}
    return Answer("runs.html", values, ("runs",))


class RunFacts(NamedTuple):
    """A run, the document it is pinned to, and all its attempts."""

    detail: RunDetail
    document: DagDocument
    spans: list[AttemptSpan]
    #: (task, which of its attempts, how it ended) → what it reported
    curves: dict[str, MetricCurves]


def _facts(site: Site, dag_id: str, run_id: str) -> RunFacts:
    detail = run_detail(site.workspace, dag_id, run_id, site.now)
    with site.workspace.database.reading() as connection:
        row = run_queries.get(connection, dag_id, detail.run_id)
        document, _ = Versions().get(connection, row.version_id)
        tasks = {each.id: each.task_id for each in task_queries.rows_of_run(connection, row.id)}
        attempts = attempt_queries.of_tasks(connection, list(tasks))
        curves = curve_queries.of_attempts(connection, [each.attempt_id for each in attempts])
    spans = [
        AttemptSpan(
            tasks[each.task_instance_id],
            each.try_number,
            each.outcome or "running",
            each.queued_at,
            each.started_at,
            each.ended_at,
            [(datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in each.waits or ()],
        )
        for each in attempts
    ]
    numbers: Counter[int] = Counter()
    named: dict[str, MetricCurves] = {}
    for each in attempts:
        numbers[each.task_instance_id] += 1
        if each.attempt_id in curves:
            name = f"{tasks[each.task_instance_id]} #{numbers[each.task_instance_id]}, {each.outcome or 'running'}"
            named[name] = curves[each.attempt_id]
    return RunFacts(detail, document, spans, dict(list(named.items())[-_MOST_LINES:]))


def run(site: Site, request: Request) -> Answer:
    """The page of a run."""
    dag_id, run_id = request.path_params["dag_id"], request.path_params["run_id"]
    facts = _facts(site, dag_id, run_id)
    detail, document = facts.detail, facts.document
    order = [task.task_id for task in document.tasks]
    values = {
        "title": f"Run {detail.number} of {detail.dag_id}",
        "run": detail,
        "finished": detail.state in ("success", "failed"),
        "graph": run_graph(document, detail.tasks),
        "gantt": gantt(facts.spans, order, site.now),
        "checkpoint": _committed(site, detail),
        "progress": progress_charts(facts.curves),
    }
    return Answer("run.html", values, (f"run:{detail.dag_id}/{detail.run_id}", f"dag:{detail.dag_id}"))


def run_graph(document: DagDocument, tasks: Sequence[TaskSummary]) -> Any:
    """The tasks of a run, each in its state."""
    states = {task.task_id: task.state for task in tasks}
    return graph(
        {task.task_id: task.upstream for task in document.tasks},
        states,
        {task.task_id: task.operator for task in document.tasks},
    )


def _committed(site: Site, detail: RunDetail) -> Any:
    """The chain and the number of the checkpoint that a run committed."""
    from trainflow.insight.ended_runs import run_line

    with site.workspace.database.reading() as connection:
        row = run_queries.get(connection, detail.dag_id, detail.run_id)
        versions = Versions()
        document, _ = versions.get(connection, row.version_id)
        line = run_line(connection, row, versions)
    if document.chain is None:
        return None
    return {"chain": document.chain, "line": line}


# -- a task ------------------------------------------------------------------------------------------------------------


def task(site: Site, request: Request) -> Answer:
    """The page of a task of a run."""
    names = request.path_params
    detail = task_detail(site.workspace, names["dag_id"], names["run_id"], names["task_id"], site.now)
    chosen = request.query_params.get("attempt") or (detail.attempts[-1].attempt_id if detail.attempts else None)
    attempt = next((each for each in detail.attempts if each.attempt_id == chosen), None)
    values = {
        "title": f"{detail.task_id} of run {detail.run_id}",
        "task": detail,
        "run_number": run_row(site.workspace, detail.dag_id, detail.run_id).number,
        "attempt": attempt,
        "log": _end_of_log(site, detail, attempt.attempt_id) if attempt is not None else None,
        "fields": _fields(site, detail),
        "xcoms": redact(detail.xcoms),
        "progress": _progress(detail),
        "charts": progress_charts({} if attempt is None else {_attempt_name(detail, attempt): attempt.curves}),
        "marks": _marks(site, detail),
        "live": detail.state not in FINISHED,
    }
    return Answer("task.html", values, (f"run:{detail.dag_id}/{detail.run_id}", f"dag:{detail.dag_id}"))


def _attempt_name(detail: TaskDetail, attempt: AttemptSummary) -> str:
    number = 1 + [each.attempt_id for each in detail.attempts].index(attempt.attempt_id)
    return f"{detail.task_id} #{number}, {attempt.outcome or 'running'}"


def _marks(site: Site, detail: TaskDetail) -> list[str]:
    """What the task may be marked as; a run that has not started has no task yet."""
    if detail.state is None:
        return []
    found = possible_marks(site.workspace, detail.dag_id, detail.run_id, detail.task_id)
    return [each for each in found if each in ("success", "failed")]


def _fields(site: Site, detail: TaskDetail) -> dict[str, Any]:
    """The template fields as they are written: only the process of an attempt renders them."""
    with site.workspace.database.reading() as connection:
        row = run_queries.get(connection, detail.dag_id, detail.run_id)
        document, _ = Versions().get(connection, row.version_id)
    described = document.task(detail.task_id)
    shown: dict[str, Any] = redact(described.template_fields if described is not None else {})
    return shown


def _progress(detail: TaskDetail) -> dict[str, Any]:
    """How far it is: share, words, and what else it reported."""
    progress = dict(detail.progress or {})
    done, total = progress.pop("done", None), progress.pop("total", None)
    unit, note = progress.pop("unit", None) or "", progress.pop("note", None) or ""
    share = min(1.0, done / total) if total and done is not None else None
    numbers = progress.get("metrics") or {}
    return {"done": done, "total": total, "unit": unit, "note": note, "share": share, "metrics": numbers}


# -- what it printed ---------------------------------------------------------------------------------------------------


class LogPart(msgspec.Struct, frozen=True):
    """Some of a log, as HTML; `position`: where it goes on; `cut`: there is more before it."""

    html: str
    position: int
    cut: bool
    ended: bool


def _end_of_log(site: Site, detail: TaskDetail, attempt_id: str) -> LogPart:
    chosen = attempt_log(site.workspace, detail.dag_id, detail.run_id, detail.task_id, attempt_id)
    source = log_source(site.workspace, chosen)
    file = Path(chosen.path)
    # what is in a store elsewhere does not say how long it is
    position = max(0, file.stat().st_size - _LOG_BYTES) if file.is_file() else 0
    cut, data = position > 0, b""
    while (more := source.read(position, _LOG_BYTES)).data:
        cut, data, position = cut or len(data) + len(more.data) > _LOG_BYTES, data + more.data, more.position
        data = data[-_LOG_BYTES:]
    if cut:
        data = data.partition(b"\n")[2]
    return _part(data, position - len(data), cut=cut, ended=detail.state in FINISHED)


def _part(data: bytes, position: int, *, cut: bool, ended: bool) -> LogPart:
    """Bytes that begin at a position, as far as lines have ended."""
    whole = data if ended else data[: data.rfind(b"\n") + 1]
    return LogPart(str(log_markup(whole.decode("utf-8", "replace"))), position + len(whole), cut, ended)


def log(site: Site, request: Request) -> Response:
    """More of a log as JSON from `position` on; or, without it, all of it as a file."""
    names = request.path_params
    dag_id, run_id, task_id = names["dag_id"], names["run_id"], names["task_id"]
    chosen = attempt_log(site.workspace, dag_id, run_id, task_id, request.query_params.get("attempt"))
    source = log_source(site.workspace, chosen)
    position = request.query_params.get("position")
    if position is None:
        # in this order: a log that has ended when it is measured is the same for ever
        ended, whole = has_ended(site.workspace, chosen), WholeLog(source)
        etag = f'"{chosen.attempt_id}.{whole.size}"' if ended else None
        name = f"{chosen.attempt_id}.log"
        return download(request, name, whole.size, etag, whole.read, media="text/plain; charset=utf-8")
    if not position.isdecimal() or len(position) > 15:
        raise InputError(f"position={position} is no number of bytes")
    # in this order: what was written before the attempt ended is read then
    ended = has_ended(site.workspace, chosen)
    found = source.read(int(position), _LOG_BYTES)
    part = _part(found.data, found.position - len(found.data), cut=False, ended=ended)
    return Response(msgspec.json.encode(part), media_type="application/json", headers={"Cache-Control": "no-store"})
