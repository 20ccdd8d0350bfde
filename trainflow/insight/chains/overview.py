"""All chains at a glance: where each is, and in a sentence why nothing is training, or what is."""

from __future__ import annotations

from datetime import datetime

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.insight.chains.chain_status import ChainStatus, chain_statuses_in
from trainflow.insight.chains.known_chains import known_chain
from trainflow.insight.snapshot import DagSnapshot
from trainflow.insight.status import PipelineStatus, line_of, overview_of, snapshots_of
from trainflow.insight.why import explain
from trainflow.insight.why_task import AnswerKind
from trainflow.workspace.locate import Selection
from trainflow.workspace.workspace import Workspace


class ChainOverview(PipelineStatus, frozen=True, kw_only=True):
    """A chain as `status` shows it, with what `why` says of it."""

    why: str
    why_kind: AnswerKind


def chains_overview(workspace: Workspace, now: datetime) -> list[ChainOverview]:
    """Every chain that a DAG of the project trains; what is wrong with one is in its `problem`."""
    found = overview_of(Selection(workspace), now)
    snapshots = [each for each in found.snapshots if each.chain is not None]
    statuses = chain_statuses_in(workspace, snapshots, now)
    return [_overview(each, status, now) for each, status in zip(snapshots, statuses, strict=True)]


def chain_overview(workspace: Workspace, key: ChainKey, now: datetime) -> ChainOverview:
    """One of them. Raises NotFound, StoreFailure."""
    selection = Selection(workspace, known_chain(workspace, key).path)
    snapshots = snapshots_of(overview_of(selection, now), selection, key.stage, key.branch)
    (status,) = chain_statuses_in(workspace, snapshots[:1], now)
    return _overview(snapshots[0], status, now)


def _overview(snapshot: DagSnapshot, status: ChainStatus | None, now: datetime) -> ChainOverview:
    answer = explain(snapshot, status, now)
    line = msgspec.structs.asdict(line_of(snapshot, status, now))
    return ChainOverview(**line, why=answer.sentence, why_kind=answer.kind)
