"""One chain: its calendar, what is known of it, what happened to it."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger_changes.prune import chains_of
from trainflow.errors import InputError, NotFound
from trainflow.insight.chains.history import ChainHistory, told
from trainflow.insight.chains.partition_states import (
    PartitionRanges,
    PartitionStatus,
    Seen,
    checkpoint_borders,
    looked_at,
    partition_ranges,
    training_seen,
)
from trainflow.insight.chains.partitions import partition_report
from trainflow.insight.snapshot import DagSnapshot
from trainflow.messages.http_protocol import is_named
from trainflow.pages import calendar as drawing
from trainflow.pages.fleet import fleet_row
from trainflow.pages.rendering import day
from trainflow.pages.site import Answer, OpenedChain, Site, key_of
from trainflow.samples.spec import Samples

#: what was seen of samples is good for so many seconds
_SEEN_SECONDS = 30.0
#: events in the list of a page
_MOST_EVENTS = 100


class CalendarRow(NamedTuple):
    """A chain that is drawn; `stage` and `branch` name its row."""

    key: ChainKey
    chosen: bool


def chain(site: Site, request: Request) -> Answer:
    """The page of a chain."""
    key = key_of(request)
    opened = site.chain(key)
    snapshot = _snapshot(site, key)
    (seen,) = site.watch.see([snapshot], site.now, patience=0.5)
    samples = opened.chain.samples
    with opened.lock:
        state = opened.ledger.state()
        found = _ranges(site, opened, samples, snapshot) if samples is not None else None
    history = site.history_of(opened)
    events = told(history.events)
    values = {
        "title": str(key),
        "key": key,
        "row": fleet_row(snapshot, seen.status, seen.lags, site.now),
        "status": seen.status,
        "state": state,
        "count": len(history.line),
        "aliases": sorted((alias, history.find(name)) for alias, name in history.aliases.items()),
        "rows": _rows(site, opened, key),
        "counts": drawing.counts(found) if found is not None else {},
        "meaning": drawing.MEANING,
        "table": drawing.table(found, samples) if found is not None and samples is not None else [],
        "ranges": len(found.ranges) if found is not None else 0,
        "events": events[::-1][:_MOST_EVENTS],
        "events_in_all": len(events),
        "unread": state.sequence - history.sequence,
        "document": opened.chain.document,
    }
    return Answer("chain.html", values, _topics(snapshot))


def _topics(snapshot: DagSnapshot) -> tuple[str, ...]:
    return (f"dag:{snapshot.dag_id}",)


def _snapshot(site: Site, key: ChainKey) -> DagSnapshot:
    snapshot = site.snapshot_of(key)
    if snapshot is None:
        raise NotFound(f"no pipeline of this project trains a chain {key}")
    return snapshot


def _rows(site: Site, opened: OpenedChain, key: ChainKey) -> list[CalendarRow]:
    """All chains of the pipeline, by stage; its branches as the store has them."""
    known = {key}
    for each in site.overview().snapshots:
        if each.chain is not None and each.chain.pipeline == key.pipeline and "{" not in each.chain.branch:
            known.add(ChainKey(each.chain.pipeline, each.chain.stage, each.chain.branch))
    known |= {each for each in chains_of(opened.ledger.store, key.pipeline) if each.pipeline == key.pipeline}
    return [CalendarRow(each, each == key) for each in sorted(known)]


# -- the calendar ------------------------------------------------------------------------------------------------------


def _ranges(site: Site, opened: OpenedChain, samples: Samples, snapshot: DagSnapshot) -> PartitionRanges:
    """The ranges with what is under way and what was seen of the samples last; a look at them is taken beside, and the
    page is told when it has come."""
    seen = drawing.still_true(site.seen_of(opened, _look), opened.ledger.state())
    stretches = [*seen, *training_seen(site.workspace, snapshot.dag_id)]
    return partition_ranges(opened.ledger, samples, site.now, Seen(stretches))


def _look(opened: OpenedChain, now: datetime) -> Any:
    samples = opened.chain.samples
    if samples is None:
        return []
    return looked_at(opened.chain.ledger(opened.ledger.chain), samples, opened.chain.root, now)


def calendar(site: Site, request: Request) -> Response:
    """What the drawing is made of. With `If-None-Match` of what a page has, it is told when that is the same."""
    key = key_of(request)
    opened = site.chain(key)
    samples = opened.chain.samples
    if samples is None:
        raise InputError(f"chain {key} has no samples that are cut into partitions")
    with opened.lock:
        found = _ranges(site, opened, samples, _snapshot(site, key))
    body = msgspec.json.encode(drawing.wire(found, samples, _marks(site.history_of(opened), key)))
    tag = f'"{sha256(body).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if is_named(tag, request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


#: of a long chain, so many marks, the newest
_MOST_MARKS = 500
_MOST_BORDERS = 1000
_MARKED = frozenset({"promotion", "rewind", "fork", "adoption", "stop", "regrid"})


def _marks(history: ChainHistory, key: ChainKey) -> list[tuple[datetime, str, str, str]]:
    found = [
        (each.watermark, each.kind, each.sentence, "")
        for each in history.events[-_MOST_MARKS:]
        if each.kind in _MARKED and each.watermark is not None
    ]
    line = history.line
    if line:
        head = line[-1]
        found.append((head.watermark, "head", f"head: checkpoint {head.number}", _link(key, head.number)))
    return found


def _link(key: ChainKey, number: int) -> str:
    return f"chains/{key.pipeline}/{key.stage}/{key.branch}/checkpoints/{number}"


def borders(site: Site, request: Request) -> Response:
    """Where checkpoints end between two partitions, by number: what is seen of a long chain."""
    opened = site.chain(key_of(request))
    samples = opened.chain.samples
    first, end = (request.query_params.get(name, "") for name in ("first", "end"))
    if samples is None or not (first.isdecimal() and end.isdecimal()) or len(first + end) > 18:
        raise InputError("first and end are numbers of partitions")
    with opened.lock:
        found = checkpoint_borders(opened.ledger, samples, int(first), int(end))
    return Response(msgspec.json.encode(found[-_MOST_BORDERS:]), media_type="application/json")


# -- one partition -----------------------------------------------------------------------------------------------------


def partition(site: Site, request: Request) -> Answer:
    """What became of one partition: looks at its folder."""
    key = key_of(request)
    opened = site.chain(key)
    with opened.lock:
        report = partition_report(opened.chain, request.path_params["start"], site.now)
        samples = opened.chain.samples
        found = _ranges(site, opened, samples, _snapshot(site, key)) if samples is not None else None
    trained = opened.history().find(report.trained_by.checkpoint_id) if report.trained_by else None
    values = {
        "title": f"{day(report.start)} of {key}",
        "key": key,
        "report": report,
        "state": _state_of(report, found, samples),
        "meaning": drawing.MEANING,
        "reason": report.reason or _reason(opened, report.start),
        "trained": trained,
        "dag_id": opened.chain.dag_id,
    }
    return Answer("partition.html", values, (f"dag:{_snapshot(site, key).dag_id}",))


def _state_of(report: Any, found: PartitionRanges | None, samples: Samples | None) -> PartitionStatus:
    from trainflow.samples.partitions import place_of

    if found is None or samples is None:
        return PartitionStatus.ABSENT
    place = place_of(samples, report.start)
    state = next((state for first, length, state in found.ranges if first <= place < first + length), None)
    if report.republished:
        return PartitionStatus.REPUBLISHED
    return PartitionStatus(state) if state else PartitionStatus.ABSENT


def _reason(opened: OpenedChain, start: datetime) -> str:
    """Why the chain stepped over it, or stands before it."""
    state = opened.ledger.state()
    for hole in (*(each.hole for each in state.holes), *state.skips):
        if hole.start <= start < hole.end:
            return hole.reason
    if state.stopped is not None and state.stopped.split.start <= start < state.stopped.split.end:
        return "; ".join(state.stopped.reasons)
    return ""
