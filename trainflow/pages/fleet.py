"""All chains on one page: what needs a person first, with what can be decided about it, then a line for each other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from starlette.requests import Request

from trainflow.checkpoints.chain import ChainKey
from trainflow.humanize import number
from trainflow.insight.chains.chain_status import ChainStatus
from trainflow.insight.snapshot import DagSnapshot, EngineSnapshot, RunSnapshot
from trainflow.insight.status import current_task
from trainflow.insight.why import explain
from trainflow.insight.why_task import AnswerKind
from trainflow.pages.curves import sparkline
from trainflow.pages.site import Answer, Site

_K = AnswerKind
#: a person has to do something
BAD = frozenset({_K.GATE, _K.FAILED, _K.BROKEN_FILE, _K.MISSING_FILE, _K.SAMPLES_CHANGED, _K.NO_TRIGGERER})
#: something is in the way
HELD_UP = frozenset({_K.NO_ENGINE, _K.PAUSED, _K.RETRYING, _K.NO_SLOT})
AT_WORK = frozenset({_K.TRAINING, _K.WORKING, _K.STARTING, _K.QUEUED})


class Decision(NamedTuple):
    """What can be decided about a stopped chain: by a form, or by the command."""

    label: str
    command: str
    #: of the form; empty: there is none
    decision: str = ""


class FleetRow(NamedTuple):
    """One DAG. `level`: bad, held, work or idle; `lags`, `scores`: points of sparklines; `metric`, `score`: the first
    metric of the head, empty without any."""

    dag_id: str
    path: str
    key: ChainKey | None
    level: str
    state: str
    sentence: str
    head: int | None
    watermark: datetime | None
    lag: str
    lag_seconds: float | None
    lags: str
    metric: str
    score: str
    scores: str
    eta_seconds: float | None
    never: bool
    run: RunSnapshot | None
    task: str
    share: float | None
    paused: bool
    decisions: list[Decision]
    pending: bool


class FleetView(NamedTuple):
    """The page. `cards`: where a person may have to act; `lines`: what goes on by itself."""

    engine: EngineSnapshot
    cards: list[FleetRow]
    lines: list[FleetRow]
    counts: list[tuple[str, int]]
    undelivered: int


def fleet_view(
    snapshots: Sequence[tuple[DagSnapshot, ChainStatus | None, list[float]]], engine: EngineSnapshot, now: datetime
) -> FleetView:
    """What the page shows; what a person has to see to comes first."""
    rows = [fleet_row(snapshot, status, lags, now) for snapshot, status, lags in snapshots]
    order = ("bad", "held", "work", "idle")
    rows.sort(key=lambda row: (order.index(row.level), row.path, row.dag_id))
    counts = [(level, sum(row.level == level for row in rows)) for level in order]
    cards = [row for row in rows if has_card(row)]
    lines = [row for row in rows if not has_card(row)]
    return FleetView(engine, cards, lines, counts, sum(each.undelivered for each, _, _ in snapshots))


def has_card(row: FleetRow) -> bool:
    """Whether there is something to see to, or to decide; what goes on by itself is a line."""
    return row.level in ("bad", "held") or bool(row.decisions)


def fleet_row(snapshot: DagSnapshot, status: ChainStatus | None, lags: list[float], now: datetime) -> FleetRow:
    """One DAG and its chain; `status` None: it has none, or nothing is known of it yet."""
    found = explain(snapshot, status, now)
    run = snapshot.running[0] if snapshot.running else snapshot.queued
    task = current_task(run) if run else None
    progress = (task.progress if task else None) or {}
    total, done = progress.get("total"), progress.get("done")
    trend = status.metric_trend if status else []
    return FleetRow(
        dag_id=snapshot.dag_id,
        path=snapshot.path,
        key=chain_key(snapshot),
        level=level_of(found.kind),
        state=_state(found.kind, status),
        sentence=found.sentence.removeprefix(f"{snapshot.dag_id}: "),
        head=status.head_number if status else None,
        watermark=status.watermark if status else None,
        lag=_lag(status),
        lag_seconds=status.lag_seconds if status else None,
        # a chain that was never behind has no trend
        lags=sparkline(lags) if any(lags) else "",
        metric=(status.metric or "") if status and trend else "",
        score=number(trend[-1]) if trend else "",
        scores=sparkline(trend),
        # a chain that waits for a person gets nowhere by itself
        eta_seconds=status.catches_up_in_seconds if status and status.lag and not status.stopped else None,
        never=status is not None and status.never_catches_up,
        run=run,
        task=task.task_id if task else "",
        share=min(1.0, done / total) if total and done is not None else None,
        paused=snapshot.paused,
        decisions=decisions_about(snapshot, status, found.kind),
        pending=status is None and snapshot.chain is not None,
    )


def _state(kind: AnswerKind, status: ChainStatus | None) -> str:
    if kind is _K.CAUGHT_UP and status is not None and not status.head_number:
        return "nothing to train yet"
    return _STATES.get(kind, kind.replace("_", " "))


_STATES = {_K.GATE: "stopped by a gate", _K.NO_ENGINE: "no engine", _K.SAMPLES_CHANGED: "samples changed"}


def level_of(kind: AnswerKind) -> str:
    """How much a person has to do with it."""
    if kind in BAD:
        return "bad"
    if kind in HELD_UP:
        return "held"
    return "work" if kind in AT_WORK else "idle"


def chain_key(snapshot: DagSnapshot) -> ChainKey | None:
    """Name of the chain of a DAG; None where it has none, or only a run renders it."""
    chain = snapshot.chain
    if chain is None or "{" in f"{chain.pipeline}{chain.stage}{chain.branch}":
        return None
    return ChainKey(chain.pipeline, chain.stage, chain.branch)


def decisions_about(snapshot: DagSnapshot, status: ChainStatus | None, kind: AnswerKind) -> list[Decision]:
    """What can be decided about a chain that does not go on by itself."""
    key = chain_key(snapshot)
    if key is None:
        return []
    resume = f"trainflow resume {key.arguments}"
    if kind is _K.GATE:
        return [
            Decision("Train the split again", resume, "again"),
            Decision("Accept the checkpoint", f"{resume} --accept", "accept"),
            Decision("Leave the split out", f"{resume} --skip", "skip"),
            Decision("Go back", f"{resume} --rewind 1", "rewind"),
        ]
    failed_at_samples = snapshot.last is not None and any(
        task.role == "samples" and task.state == "failed" for task in snapshot.last.tasks
    )
    if kind is _K.FAILED and failed_at_samples:
        return [
            Decision("Leave these samples out", f"{resume} --skip", "skip"),
            Decision("Look again", f"trainflow start {snapshot.path}"),
        ]
    if kind is _K.FAILED:
        return [Decision("Try again", f"trainflow start {snapshot.path}")]
    if status is not None and status.holes_arrived:
        return [Decision("Train what arrived late", f"trainflow repair {key.arguments}")]
    return []


def _lag(status: ChainStatus | None) -> str:
    if status is None or status.lag is None:
        return "?" if status is not None and status.problem else ""
    return f"{status.lag:,}{'+' if status.lag_is_more else ''}"


def fleet(site: Site, _request: Request) -> Answer:
    """The page at `/`."""
    found, now = site.overview(), site.now
    seen = site.watch.see(found.snapshots, now)
    rows = [(each, what.status, what.lags) for each, what in zip(found.snapshots, seen, strict=True)]
    return Answer("fleet.html", {"view": fleet_view(rows, found.engine, now), "title": "Fleet"}, ("fleet",))
