"""The checkpoints of a chain: their metrics over the watermark, and one of them in full."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.gates import parse_condition
from trainflow.checkpoints.ledger_changes.prune import chains_of
from trainflow.errors import InputError, NotFound
from trainflow.insight.chains.checkpoints import checkpoint_detail, checkpoint_file
from trainflow.insight.chains.history import ChainHistory, CheckpointEvent
from trainflow.insight.chains.lineage import lineage
from trainflow.pages.curves import Chart, Measured, chart
from trainflow.pages.downloads import download
from trainflow.pages.site import Answer, OpenedChain, Site, key_of

#: rows of a page of checkpoints
PAGE = 100
#: partitions of a split, and of a lineage, in a page
MOST_PARTITIONS = 200


class NumericGate(NamedTuple):
    """A gate against a number: what can be drawn."""

    metric: str
    limit: float
    text: str


def checkpoints(site: Site, request: Request) -> Answer:
    """The line with its metrics; `compare` names branches that are drawn beside, `before` a number to page back."""
    key = key_of(request)
    opened = site.chain(key)
    history = opened.history()
    compared = _compared(site, request, key)
    before = _number(request.query_params.get("before"))
    shown = [each for each in reversed(history.checkpoints) if before is None or each.number < before]
    values = {
        "title": f"Checkpoints of {key}",
        "key": key,
        "history": history,
        "shown": shown[:PAGE],
        "older": shown[PAGE - 1].number if len(shown) > PAGE else None,
        "charts": charts({key.branch: history, **compared}, gates_of(opened.chain.document.gates)),
        "branches": [each for each in _branches(opened, key) if each != key.branch],
        "compared": sorted(compared),
        "unmeasured": sorted(branch for branch, each in compared.items() if not each.line),
    }
    return Answer("checkpoints.html", values, (f"dag:{opened.chain.dag_id}",))


def charts(histories: dict[str, ChainHistory], gates: Sequence[NumericGate]) -> list[Chart]:
    """A drawing for each metric, what was measured before training first."""
    first = next(iter(histories.values()))
    marks = [(each.watermark, each.sentence) for each in first.events if each.kind == "promotion" and each.watermark]
    found: list[Chart] = []
    for name, prequential in _metrics(list(histories.values())):
        measured = {branch: list(_measured(each, name, prequential)) for branch, each in histories.items()}
        limits = [(gate.limit, gate.text) for gate in gates if gate.metric == name]
        where = "on samples before they were trained on" if prequential else "as the trainer reported it"
        made = chart(f"{name}, {where}", measured, limits, marks)
        if made is not None:
            found.append(made)
    return found


def _metrics(histories: Sequence[ChainHistory]) -> list[tuple[str, bool]]:
    names: dict[tuple[str, bool], None] = {}
    for history in histories:
        for each in history.line:
            names |= dict.fromkeys((name, True) for name in each.scores if name != "rows")
    for history in histories:
        for each in history.line:
            names |= dict.fromkeys((name, False) for name in each.metrics if name != "rows")
    return list(names)


def _measured(history: ChainHistory, name: str, prequential: bool) -> Iterator[Measured]:
    for each in history.line:
        values = each.scores if prequential else each.metrics
        if name in values:
            yield each.watermark, values[name], each.number


def _compared(site: Site, request: Request, key: ChainKey) -> dict[str, ChainHistory]:
    found = {}
    for branch in request.query_params.getlist("compare")[:8]:
        if branch != key.branch:
            try:
                other = ChainKey(key.pipeline, key.stage, branch)
            except InputError as error:
                raise NotFound(str(error)) from None
            found[branch] = site.chain(other).history()
    return found


def _branches(opened: OpenedChain, key: ChainKey) -> list[str]:
    found = chains_of(opened.ledger.store, key.pipeline)
    return sorted({each.branch for each in found if each.stage == key.stage} | {key.branch})


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 else None


def gates_of(conditions: Sequence[str]) -> list[NumericGate]:
    """The gates that are against a number."""
    found = []
    for each in conditions:
        with contextlib.suppress(InputError):
            condition = parse_condition(each)
            if not condition.against_previous and condition.comparison != "finite":
                found.append(NumericGate(condition.metric, condition.offset, condition.text))
    return found


# -- one -------------------------------------------------------------------------------------------------------------


def _event(history: ChainHistory, which: str, key: ChainKey) -> CheckpointEvent:
    line = history.line
    found = (line[-1] if line else None) if which == "head" else history.find(which)
    if found is None:
        raise NotFound(f"chain {key} never had a checkpoint {which}")
    return found


def checkpoint(site: Site, request: Request) -> Answer:
    """One checkpoint: of a kept one its files, too."""
    key = key_of(request)
    opened = site.chain(key)
    history = opened.history()
    event = _event(history, request.path_params["which"], key)
    detail = checkpoint_detail(opened.chain, event.id) if not event.pruned else None
    learnt = lineage(opened.chain, event.id)
    line = history.line
    values = {
        "title": f"Checkpoint {event.number} of {key}",
        "key": key,
        "event": event,
        "of": history.last_number,
        "head": bool(line) and line[-1].id == event.id,
        "aliases": history.aliases_of(event.id),
        "parent": history.find(event.parent_id or ""),
        "children": [each for each in history.checkpoints if each.parent_id == event.id],
        "detail": detail,
        "lineage": learnt,
        "lineage_shown": learnt.partitions[-MOST_PARTITIONS:][::-1],
        "most": MOST_PARTITIONS,
        "run": _run_of(site, opened.chain.dag_id, event.run_id),
        "events": [each for each in history.events if each.checkpoint_id == event.id],
    }
    return Answer("checkpoint.html", values, (f"dag:{opened.chain.dag_id}",))


def _run_of(site: Site, dag_id: str, run_id: str) -> Any:
    """The run that committed it, where this home still knows it."""
    from trainflow.metadata.queries import run_queries

    database = site.workspace.existing_database
    if database is None or not run_id:
        return None
    with database.reading() as connection:
        return run_queries.find(connection, dag_id, run_id)


def file(site: Site, request: Request) -> Response:
    """A file of a checkpoint, as it was committed: only what its manifest names."""
    key = key_of(request)
    opened = site.chain(key)
    event = _event(opened.history(), request.path_params["which"], key)
    if event.pruned:
        raise NotFound(f"the files of checkpoint {event.number} of {key} were pruned")
    found = checkpoint_file(opened.chain, event.id, request.path_params["path"])
    name = found.name.rpartition("/")[2]
    checksum = {"x-checksum-sha256": found.digest.removeprefix("sha256:")}
    return download(request, name, found.size, f'"{found.digest}"', found.read, headers=checksum)
