"""Where a chain stands, and how much is ready beyond its head. Reads the ledger and the samples, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from trainflow.checkpoints.ledger.ancestors import KeptLine, past_runs
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.rules import change_of
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary
from trainflow.checkpoints.upkeep.changed_samples import open_holes, republished
from trainflow.concurrent_map import concurrent_map, forked_map
from trainflow.errors import PipelineFileError, TrainflowError
from trainflow.insight.chains.lost_ledger_end import RememberedCheckpoint, describe_loss
from trainflow.insight.chains.next_run import next_run_of
from trainflow.insight.snapshot import DagSnapshot
from trainflow.messages.parsed_file import ChainAccess
from trainflow.samples.grid import grid_of
from trainflow.samples.grid_change import sentence_about
from trainflow.samples.partitions import after_watermark, distance, end_of, mean_seconds, shift
from trainflow.samples.spec import Samples
from trainflow.samples.splits.late_partitions import arrived, merged
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.inventory import Inventory, open_inventory
from trainflow.samples.table.readiness import Readiness
from trainflow.samples.throughput import estimate_catch_up, lag_behind, throughput_of
from trainflow.serialization.document import ChainDocument
from trainflow.settings.project import Project
from trainflow.storage.reachability import is_remote
from trainflow.workspace.pipeline_file import dags_named_in
from trainflow.workspace.pipelines import PipelineChain
from trainflow.workspace.workspace import Workspace

#: so many partitions beyond the head are looked at; more are "at least so many"
MOST = 1000
#: so many chains behind a network are asked about at a time
_AT_ONCE = 16
#: so many chains on this machine take about twice as long as to copy a process, which one process does for all copies
_WORTH_A_PROCESS, _MOST_COPIES = 4, 16


class ChainStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A chain now. `problem`: why the ledger or the samples could not be read."""

    #: 0: nothing is committed yet
    head_number: int | None = 0
    head_id: str | None = None
    watermark: datetime | None = None
    #: partitions that are ready and not trained; None: not known
    lag: int | None = None
    #: there are at least `lag`
    lag_is_more: bool = False
    #: from the watermark to the end of the newest ready partition; None: not known
    lag_seconds: float | None = None
    #: samples arrive faster than they are trained on
    never_catches_up: bool = False
    #: how long it takes to catch up at the pace of the newest runs; None: never, or not known
    catches_up_in_seconds: float | None = None
    #: partitions that the line stepped over and has not trained since, and how many of them were missing and are there
    #: now; what a gate or a person left out on purpose is none of these
    holes: int | None = 0
    holes_arrived: int | None = 0
    #: partitions that were published again after they were trained on, as far back as policy looks
    republished: list[datetime] = []
    #: what gates have against the checkpoint that they refused; empty: the chain is not stopped
    stopped: list[str] = []
    #: nothing but names of metrics that do not exist
    misnamed: bool = False
    #: the samples are not those that the chain was trained on, and what to do about that
    samples_changed: str | None = None
    #: the ledger knows less than was committed from here: what, and what to do about that
    lost_end: str | None = None
    #: why there is nothing to start from yet; only of a stage that starts from another one
    waits: str | None = None
    problem: str | None = None
    #: what was measured of the newest checkpoints, oldest first: the name of one metric and its values; and how long
    #: after the end of what it was trained on each was committed, in seconds
    metric: str | None = None
    metric_trend: list[float] = []
    lag_trend: list[float] = []


#: so many checkpoints make a trend
_TREND = 24


def trend_of(recent: Sequence[CheckpointSummary]) -> dict[str, Any]:
    """The trends of the newest checkpoints of a line: of samples that they had not seen, where that was measured."""
    line = [each for each in recent if each.on_line][-_TREND:]
    for measured in ([each.scores for each in line], [each.metrics for each in line]):
        names = [name for each in reversed(measured) for name in each if name != "rows"]
        if names:
            values = [each[names[0]] for each in measured if names[0] in each]
            break
    else:
        names, values = [], []
    lags = [(each.at - each.watermark).total_seconds() for each in line]
    return {"metric": names[0] if names else None, "metric_trend": values, "lag_trend": lags}


def with_upstream(known: ChainStatus, chain: ChainDocument, ledger: Ledger) -> ChainStatus:
    """The same, with what the stage's upstream says."""
    if chain.init_from is None or known.problem is not None:
        return known
    try:
        return msgspec.structs.replace(known, waits=next_run_of(chain, ledger).waits)
    except TrainflowError as error:
        return msgspec.structs.replace(known, problem=str(error))


class ReadyPartitions(msgspec.Struct, frozen=True):
    """Partitions that are ready after a watermark; `more`: there are others that were not counted. `seconds`: from the
    watermark to the end of the newest."""

    ready: int
    more: bool
    seconds: float


def chain_status_of(
    ledger: Ledger,
    samples: Samples | None,
    root: Path,
    now: datetime,
    committed: RememberedCheckpoint | None = None,
) -> ChainStatus:
    """Where the chain stands. Never raises for what is wrong with the store or the samples: `problem` says it.
    `committed`: what is known to have been committed."""
    try:
        state = ledger.state()
    except TrainflowError as error:
        return ChainStatus(problem=str(error))
    known = ChainStatus(
        head_number=state.head_number,
        head_id=state.head.id if state.head else None,
        watermark=state.watermark,
        stopped=state.stopped.reasons if state.stopped else [],
        misnamed=state.stopped is not None and state.stopped.misnamed,
        lost_end=describe_loss(committed, state.last_number, ledger.store.url),
        **trend_of(state.recent),
    )
    if samples is None:
        return known
    try:
        change = change_of(state, grid_of(samples))
        if change is not None:
            said = sentence_about(change, ledger.chain.arguments, ledger.chain.fork_arguments)
            return msgspec.structs.replace(known, samples_changed=said)
        inventory = open_inventory(samples, root, now)
        line = KeptLine(ledger, state)
        known = _with_lag(known, state, line, samples, inventory)
        return _with_changes(known, state, line, samples, inventory, root)
    except TrainflowError as error:
        return msgspec.structs.replace(known, problem=str(error))


def _with_lag(
    known: ChainStatus, state: ChainState, line: KeptLine, samples: Samples, inventory: Inventory
) -> ChainStatus:
    beyond = ready_after(samples, state.edge, inventory)
    partitions = max(beyond.ready, round(beyond.seconds / mean_seconds(samples))) if beyond.more else beyond.ready
    pace = throughput_of(past_runs(line))
    ahead = estimate_catch_up(samples, partitions, pace.seconds_a_partition, inventory.now)
    return msgspec.structs.replace(
        known,
        lag=beyond.ready,
        lag_is_more=beyond.more,
        lag_seconds=beyond.seconds,
        never_catches_up=ahead.never,
        catches_up_in_seconds=ahead.seconds,
    )


def _with_changes(
    known: ChainStatus, state: ChainState, line: KeptLine, samples: Samples, inventory: Inventory, root: Path
) -> ChainStatus:
    again = republished(line, samples, root, inventory.now)
    return msgspec.structs.replace(
        known,
        holes=holes_of(state, samples),
        holes_arrived=sum(1 for _ in arrived(samples, open_holes(state), inventory)),
        republished=[each.start for each in again],
    )


def holes_of(state: ChainState, samples: Samples) -> int:
    """Partitions that the line stepped over and has not trained since; nothing is listed."""
    holes = merged(Hole(each.hole.start, each.hole.end, each.hole.reason) for each in state.holes)
    return sum(distance(samples, hole.start, hole.end) for hole in holes)


def ready_after(
    samples: Samples, watermark: datetime | None, inventory: Inventory, most: int = MOST
) -> ReadyPartitions:
    """What after the watermark is ready. Beyond the first `most` partitions it is estimated how far they go."""
    first = after_watermark(samples, watermark)
    starts = [start for start in islice(inventory.later(shift(samples, first, -1)), most + 1) if start >= first]
    more = len(starts) > most
    states = inventory.states(starts[:most])
    there = [state for state in states if state.presence is Readiness.READY]
    while there and not there[-1].files and not more:
        there.pop()  # empty, and nothing after it: it is in the split of what will come
    ready = [state.start for state in there]
    if more:
        seconds = lag_behind(samples, watermark, inventory.is_ready, inventory.now).seconds
    else:
        seconds = (end_of(samples, ready[-1]) - first).total_seconds() if ready else 0.0
    return ReadyPartitions(len(ready), more, seconds)


# -- reached from a DAG ------------------------------------------------------------------------------------------------


def chain_status_in(workspace: Workspace, snapshot: DagSnapshot, now: datetime) -> ChainStatus | None:
    """Where the chain of a DAG stands; None for a DAG without one."""
    if snapshot.chain is None:
        return None
    return _reached(workspace, snapshot.dag_id, snapshot.chain, snapshot.path, now, committed=snapshot.committed)


def chain_statuses_in(
    workspace: Workspace, snapshots: Sequence[DagSnapshot], now: datetime, *, processes: int = 1
) -> list[ChainStatus | None]:
    """Where the chains of DAGs stand. Those that lie behind a network are asked about at once, since each takes several
    requests; those on this machine keep a processor busy: up to `processes` copies of this process share them, where
    it is one that may be copied."""

    def ask(snapshot: DagSnapshot) -> ChainStatus | None:
        return chain_status_in(workspace, snapshot, now)

    far = [number for number, each in enumerate(snapshots) if _is_remote(workspace, each.chain)]
    near = sorted(set(range(len(snapshots))).difference(far))
    copies = min(processes, len(near) // _WORTH_A_PROCESS, _MOST_COPIES)
    # before the others: these begin threads
    answers = forked_map(copies, ask, [snapshots[number] for number in near], list[ChainStatus | None])
    found = dict(zip(near, answers, strict=True))
    found |= zip(far, concurrent_map(_AT_ONCE, ask, [snapshots[number] for number in far]), strict=True)
    return [found[number] for number in range(len(snapshots))]


def _is_remote(workspace: Workspace, chain: ChainDocument | None) -> bool:
    if chain is None:
        return False
    urls = (chain.store or workspace.settings.checkpoints.store, chain.samples.path if chain.samples else "")
    return any(is_remote(url) for url in urls)


def head_of(workspace: Workspace, dag_id: str, chain: ChainDocument, stored: str, now: datetime) -> ChainStatus:
    """The head of a chain of the pipeline file `stored`; its samples are not looked at."""
    return _reached(workspace, dag_id, chain, stored, now, head_only=True)


def _reached(
    workspace: Workspace,
    dag_id: str,
    document: ChainDocument,
    stored: str,
    now: datetime,
    *,
    head_only: bool = False,
    committed: RememberedCheckpoint | None = None,
) -> ChainStatus:
    """The database keeps no secrets, so the chain is reached with the settings of the project. Where these do not do,
    options that stand in a YAML file are used."""
    chain = PipelineChain(dag_id, document, ChainAccess(), workspace)
    reached = _chain_status(chain, now, committed, head_only=head_only)
    if reached.problem is None:
        return reached
    access = chain_access(dag_id, stored, workspace.project)
    if access is None:
        return reached
    return _chain_status(chain._replace(access=access), now, committed, head_only=head_only)


def _chain_status(
    chain: PipelineChain, now: datetime, committed: RememberedCheckpoint | None, *, head_only: bool
) -> ChainStatus:
    try:
        ledger = chain.ledger()
    except TrainflowError as error:
        return ChainStatus(problem=str(error))
    if head_only:
        return chain_status_of(ledger, None, chain.root, now)
    status = chain_status_of(ledger, chain.samples, chain.root, now, committed)
    return with_upstream(status, chain.document, ledger)


def chain_access(dag_id: str, stored: str, project: Project) -> ChainAccess | None:
    """The options in the pipeline's file, as they stand there; None where it has none, or only its code knows."""
    try:
        found = [each.access for each in dags_named_in(project.absolute(stored)) if each.dag_id == dag_id]
    except PipelineFileError:
        return None
    access = found[0] if found else None
    return access if access is not None and (access.store_options or access.sample_options) else None
