"""All chains at a glance: where each is, and in a sentence why nothing is training, or what is."""

from __future__ import annotations

from datetime import datetime

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.insight.chains.chain_status import chain_status_in
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
    return [_overview(workspace, each, now) for each in found.snapshots if each.chain is not None]


def chain_overview(workspace: Workspace, key: ChainKey, now: datetime) -> ChainOverview:
    """One of them. Raises NotFound, StoreFailure."""
    selection = Selection(workspace, known_chain(workspace, key).path)
    snapshots = snapshots_of(overview_of(selection, now), selection, key.stage, key.branch)
    return _overview(workspace, snapshots[0], now)


def _overview(workspace: Workspace, snapshot: DagSnapshot, now: datetime) -> ChainOverview:
    status = chain_status_in(workspace, snapshot, now)
    answer = explain(snapshot, status, now)
    line = msgspec.structs.asdict(line_of(snapshot, status, now))
    return ChainOverview(**line, why=answer.sentence, why_kind=answer.kind)
