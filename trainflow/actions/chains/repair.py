"""Have the holes of a chain trained that have arrived, or go on with a ledger of which a part is lost for good: what
that comes to, and how it is begun.

Runs of the chain's own DAG train them, told by their conf, so a kill, a retry and the fence mean what they always mean.
A run that is under way takes it on: it, or the one it triggers, repairs first and triggers an ordinary run then.
Otherwise a new run is queued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from trainflow.actions.chains.regrid import plan_regrid, regrid
from trainflow.actions.first_runs import Begin, create_run, tell_heads
from trainflow.checkpoints.chain import OfChain
from trainflow.checkpoints.ledger.ancestors import line_from_head, past_runs
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, Loss
from trainflow.checkpoints.ledger_changes.accept_loss import Damage, damage_of, put_right
from trainflow.checkpoints.upkeep.changed_samples import open_holes
from trainflow.errors import InputError
from trainflow.insight.chains.plan import PlannedSplit, planned_split
from trainflow.insight.progress import ProgressFeed, ProgressView
from trainflow.messages.workload import DagSource
from trainflow.metadata.queries import dag_queries, run_queries, task_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.operators.chain.run_conf import CONF_REPAIR, CONF_SKIPPED, REPAIR_FIRST
from trainflow.samples.grid_change import what_changed
from trainflow.samples.partitions import distance, label
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.gap_policy import TableView
from trainflow.samples.splits.late_partitions import merged, next_repair, without_stretch
from trainflow.samples.splits.split_content import Columns, Hole
from trainflow.samples.table.inventory import open_inventory
from trainflow.samples.throughput import Throughput, limits_for_target, throughput_of
from trainflow.serialization.document import DagDocument
from trainflow.states import FINISHED, DagRunState, TaskInstanceState
from trainflow.workspace.branches import dags_of
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain
from trainflow.workspace.workspace import Workspace

#: a task that is there reads its run's conf anew, unless it is cleared: it has read it, or what it waits for has
_UNDER_WAY = (
    TaskInstanceState.QUEUED,
    TaskInstanceState.RUNNING,
    TaskInstanceState.DEFERRED,
    TaskInstanceState.UP_FOR_RESCHEDULE,
)


class RepairPlan(msgspec.Struct, frozen=True):
    """What of the holes of a chain has arrived. `open`: partitions that are stepped over and not trained since;
    `skipped_too`: some of them only with those that a gate or a person left out on purpose."""

    repairs: list[PlannedSplit]
    open: int
    skipped_too: bool = False


class RepairDone(OfChain, frozen=True, kw_only=True):
    """What a repair came to, or with `dry_run` would. `repaired`: partitions that are trained now; `holes`: partitions
    still stepped over."""

    dry_run: bool
    repairs: list[PlannedSplit]
    repaired: int
    holes: int
    head_number: int
    watermark: datetime | None


def plan_repair(chain: PipelineChain, *, skipped: bool, now: datetime) -> RepairPlan:
    """What would be trained. `skipped`: also what a gate or a person left out on purpose. Raises InputError,
    SampleUnreadable, LedgerCorrupt, StoreFailure."""
    check_repairable(chain)
    samples, ledger = chain.existing_samples(), chain.ledger()
    state = ledger.state()
    history = past_runs(line_from_head(ledger, state))
    limits = limits_for_target(chain.document.limits or SplitLimits(), history)
    holes = open_holes(state, skipped=skipped)
    columns = state.head.split.columns if state.head else ()
    seen = open_inventory(samples, chain.root, now)
    found = planned(samples, holes, limits, seen, throughput_of(history), columns)
    return RepairPlan(found, _open(chain), not skipped and len(holes) < len(open_holes(state, skipped=True)))


def repair_done(chain: PipelineChain, plan: RepairPlan, *, dry_run: bool) -> RepairDone:
    """Where the chain is after the runs of a repair."""
    state, holes = chain.ledger().state(), _open(chain)
    return RepairDone(
        **chain.key.names,
        dry_run=dry_run,
        repairs=plan.repairs,
        repaired=plan.open - holes,
        holes=holes,
        head_number=state.head_number,
        watermark=state.watermark,
    )


def check_repairable(chain: PipelineChain) -> None:
    """Raise InputError for a stage each of whose runs starts from another one."""
    init = chain.document.init_from
    if init is not None and not init.once and init.checkpoint_id is None:
        raise InputError(
            f"{chain.key} cannot be repaired: each of its runs starts from {init.chain}, so what one of them stepped "
            "over is in none of the others"
        )


def _open(chain: PipelineChain) -> int:
    samples, holes = chain.existing_samples(), open_holes(chain.ledger().state(), skipped=True)
    return sum(distance(samples, hole.start, hole.end) for hole in merged(holes))


def record_earlier(chain: PipelineChain, *, dry_run: bool, who: Author, now: datetime) -> Hole | None:
    """Have the ledger know what lies before where the chain began as a hole; None: it does, or there is nothing.

    Raises InputError for samples that differ in more than an earlier start, and where there is something to record and
    `dry_run` forbids it.
    """
    check_repairable(chain)
    plan = plan_regrid(chain, now=now)
    if plan.found is None:
        return None
    change = plan.found.change
    if change.elsewhere or change.recut or change.untrained is None:
        raise InputError(
            f"{what_changed(change)}: that is more than an earlier start; "
            f"'trainflow regrid {chain.key.arguments}' first"
        )
    if dry_run:
        hole = f"{label(change.untrained.start)} to {label(change.untrained.end)}"
        raise InputError(f"{hole} is no hole yet, so there is nothing to show: without --dry-run it becomes one")
    regrid(plan, who=who, now=now, reason="trainflow repair --earlier")
    return change.untrained


def planned(
    samples: Samples,
    holes: Sequence[Hole],
    limits: SplitLimits,
    seen: TableView,
    pace: Throughput,
    columns: Columns = (),
) -> list[PlannedSplit]:
    """The runs that would train what has arrived in `holes`. Raises SampleUnreadable."""
    found: list[PlannedSplit] = []
    left = list(holes)
    while (split := next_repair(samples, left, limits, seen, columns)) is not None:
        found.append(planned_split(len(found) + 1, split, pace))
        left, columns = without_stretch(left, split.start, split.end), split.columns
    return found


def begin_repair_of(dag_id: str, *, skipped: bool) -> Begin:
    """Begins the repair of one DAG's chain where `trainflow.actions.first_runs.begin` would begin to train."""
    conf = {CONF_REPAIR: True, **({CONF_SKIPPED: True} if skipped else {})}

    def begin(workspace: Workspace, _source: DagSource, now: datetime) -> list[ProgressFeed]:
        feeds = [workspace.database.write(lambda connection: _begin(connection, dag_id, conf, now))]
        tell_heads(feeds, workspace)
        return feeds

    return begin


def _begin(connection: Connection, dag_id: str, conf: dict[str, Any], now: datetime) -> ProgressFeed:
    dag = dag_queries.lock(connection, dag_id)
    document, _ = Versions().get(connection, dag.version_id)
    unfinished = run_queries.unfinished_of(connection, dag_id)
    run = unfinished[-1] if unfinished else None
    begun_anew = None
    if run is not None and run.state == DagRunState.RUNNING:
        begun_anew = tasks_to_clear(document, task_queries.states_in_run(connection, run.id))
    if run is None or (run.state == DagRunState.RUNNING and begun_anew is None):
        own = frozenset({create_run(connection, dag_id, conf, now)})
        return RepairFeed(dag_id, own, document.chain, now, roots=own)
    known = run.conf.get(CONF_REPAIR)
    run_queries.add_conf(connection, run.id, {**conf, CONF_REPAIR: known or REPAIR_FIRST})
    if begun_anew:
        run_queries.clear(connection, run.id, now, begun_anew)
    own = frozenset({run.root_id or run.id})
    feed = RepairFeed(dag_id, own, document.chain, now, roots=own)
    feed.joins(connection, run.id)
    return feed


def tasks_to_clear(document: DagDocument, states: Mapping[str, TaskInstanceState | None]) -> set[str] | None:
    """The tasks of a run under way that are to be cleared so that it, or the run it triggers, hears what is added to
    its conf now; None: it is too late for that. Its samples and what triggers the next run read it when they begin."""
    samples = {task.task_id for task in document.tasks if task.role == "samples"}
    reached = {states.get(name) for name in samples}
    if reached & {*_UNDER_WAY}:
        return {task.task_id for task in document.tasks}
    if reached != {TaskInstanceState.SUCCESS}:
        return None if reached and reached <= {*FINISHED} else set()
    triggers = [task for task in document.tasks if task.template_fields.get("trigger_dag_id") == document.dag_id]
    left = {each.task_id: states.get(each.task_id) for each in triggers}
    if all(state in FINISHED for state in left.values()):
        return None
    return {name for name, state in left.items() if state in _UNDER_WAY}


class RepairFeed(ProgressFeed):
    """Follows until no run of the DAG repairs any more, whatever is trained after it."""

    def look(self, connection: Connection, now: datetime) -> ProgressView:
        view = super().look(connection, now)
        unfinished = run_queries.unfinished_of(connection, self.dag_id)
        return msgspec.structs.replace(view, finished=not any(run.conf.get(CONF_REPAIR) for run in unfinished))


class LostCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint whose entry is lost. `evidence`: how it is known."""

    id: str
    evidence: str


class LossDone(msgspec.Struct, frozen=True, kw_only=True):
    """What was put right and accepted, or would be. `whole`: nothing is missing; `restored`, `untied`: numbers of
    entries; `recovered`: ids of checkpoints that are committed again; `first`, `last`: of the entries that are lost,
    None: none; `head_id`, `watermark`: after it; `entry`: the number of the one that accepts it, None: not done, or not
    needed."""

    chain: str
    whole: bool
    restored: list[int]
    recovered: list[str]
    first: int | None
    last: int | None
    untied: list[int]
    lost: list[LostCheckpoint]
    head_id: str | None
    watermark: datetime | None
    entry: int | None


class LossPlan(NamedTuple):
    """What is wrong with the ledger of a chain; `damage`: None where nothing is missing."""

    chain: PipelineChain
    damage: Damage | None

    @property
    def head(self) -> Checkpoint | None:
        """What the chain goes on from; None: it begins anew."""
        if self.damage is None:
            return self.chain.ledger().state().head
        return self.damage.recovered[-1] if self.damage.recovered else self.damage.state.head

    def outcome(self, entry: Loss | None) -> LossDone:
        """What people and programs are told of it. `entry`: the one that accepts the loss."""
        damage, head = self.damage, self.head
        first = None if damage is None or not damage.is_lossy else damage.state.sequence + 1
        return LossDone(
            chain=str(self.chain.key),
            whole=damage is None,
            restored=[copy.entry.sequence for copy in damage.restored] if damage else [],
            recovered=[each.id for each in damage.recovered] if damage else [],
            first=first,
            last=None if first is None or damage is None else max(first, damage.newest.sequence),
            untied=damage.untied if damage else [],
            lost=[LostCheckpoint(name, what) for name, what in damage.lost.items()] if damage else [],
            head_id=head.id if head else None,
            watermark=head.watermark if head else None,
            entry=entry.sequence if entry else None,
        )


def plan_accept_loss(chain: PipelineChain) -> LossPlan:
    """Look at what is left of the ledger. Raises StoreFailure."""
    return LossPlan(chain, damage_of(chain.ledger()))


def accept_loss(file: OpenedPipeline, plan: LossPlan, *, who: Author, now: datetime, reason: str = "") -> LossDone:
    """Put right what can be, and record what is lost. Raises InputError while a run of the chain has not ended,
    ChainMoved, StoreFailure."""
    chain, damage = plan
    if damage is None:
        return plan.outcome(None)
    # a branch has DAGs of its own
    for dag_id in dags_of(file, chain.key):
        for run in file.workspace.active_runs(dag_id):
            raise InputError(
                f"run {run} of {dag_id} has not ended: nothing was changed; end it with 'trainflow runs cancel "
                f"{dag_id} {run}', or wait for it"
            )
    return plan.outcome(put_right(chain.ledger(), damage, by=chain.by(who), now=now, reason=reason))
