"""Decisions about chains, each an entry of its ledger with who made it; and the engine."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from trainflow.actions.chains import fork as fork_action
from trainflow.actions.chains import prune as prune_action
from trainflow.actions.chains import repair as repair_action
from trainflow.actions.chains import resume as resume_action
from trainflow.actions.chains import rewind as rewind_action
from trainflow.actions.chains.promote import PromotionDone, plan_promote, promote
from trainflow.actions.dags import keep_in_database
from trainflow.actions.first_runs import begin
from trainflow.actions.stop import tell_to_stop
from trainflow.api.rest.chains import CHAIN, chain_of
from trainflow.api.rest.dag_runs import aware
from trainflow.api.rest.endpoints import ApiCall, DryRun, EndpointGroup, NoQuery
from trainflow.api.rest.paging import Text
from trainflow.engine.lock import running_engine
from trainflow.insight.chains.known_chains import read_again
from trainflow.insight.runs.runs import list_runs
from trainflow.messages.workload import DagSource
from trainflow.metadata.queries.token_queries import Role
from trainflow.workspace.branches import as_branch
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain

decisions = EndpointGroup("Decision")
engine = EndpointGroup("Server")

Reason = Annotated[str, Meta(max_length=1000)]


def _opened(call: ApiCall[Any, Any]) -> tuple[OpenedPipeline, PipelineChain]:
    """The chain that a path names, its file read now."""
    return read_again(chain_of(call))


class RewindBody(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`to`: a checkpoint's number or id, `@alias`, or `beginning`; or `before`: to the newest checkpoint that has
    trained nothing from then on. `cascade`: later stages that went on from what is undone, too."""

    to: Text | None = None
    before: datetime | None = None
    cascade: bool = False
    reason: Reason = ""


@decisions.post(f"{CHAIN}/rewind")
def rewind_chain(call: ApiCall[NoQuery, RewindBody]) -> rewind_action.RewindDone:
    """Move the head of a chain back; nothing is deleted. Training goes forward again from there."""
    body, (file, chain) = call.body, _opened(call)
    plan = rewind_action.plan_rewind(chain, to=body.to, before=aware(body.before), now=call.now, cascade=body.cascade)
    if body.dry_run:
        return plan.outcome(dry_run=True)
    return rewind_action.rewind(file, chain, plan, who=call.author, now=call.now, reason=body.reason)


class ForkBody(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"origin": "from"}):
    """`new_branch`: its name; `from`: a checkpoint of this chain (number, id, `head`); or `before`: its newest
    checkpoint that has trained nothing from then on. `overrides`: what the branch does otherwise. `all_stages`: every
    stage of the pipeline begins the branch."""

    new_branch: Text
    origin: Text | None = None
    before: datetime | None = None
    overrides: dict[str, str] = msgspec.field(default_factory=dict)
    all_stages: bool = False


@decisions.post(f"{CHAIN}/fork")
def fork_chain(call: ApiCall[NoQuery, ForkBody]) -> fork_action.ForkDone:
    """Begin a branch beside a chain: over the same samples, from a checkpoint of it."""
    body, (file, chain) = call.body, _opened(call)
    asked = fork_action.BranchRequest(
        branch=body.new_branch,
        overrides=body.overrides,
        origin=body.origin,
        before=aware(body.before),
        stage=None if body.all_stages else chain.key.stage,
        source=chain.key.branch,
    )
    plan = fork_action.plan_fork(file, asked)
    return plan.outcome(dry_run=True) if body.dry_run else fork_action.fork(plan, who=call.author, now=call.now)


class PromoteBody(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`checkpoint`: its number, its id, or `head`; `alias`: what it is called from now on."""

    checkpoint: Text
    alias: Text
    reason: Reason = ""


@decisions.post(f"{CHAIN}/promote")
def promote_checkpoint(call: ApiCall[NoQuery, PromoteBody]) -> PromotionDone:
    """Give a checkpoint an alias; the one that had it loses it. Stages that start from what is promoted get going."""
    body, (file, chain) = call.body, _opened(call)
    if body.dry_run:
        return plan_promote(file, chain, body.checkpoint, body.alias, now=call.now)
    return promote(file, chain, body.checkpoint, body.alias, who=call.author, now=call.now, reason=body.reason)


class ResumeBody(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`decision`: train the split `again`, `accept` what gates refused, `skip` it, or `rewind` so many checkpoints.
    `start`: begin the run that goes on."""

    decision: Literal["again", "accept", "skip", "rewind"] = "again"
    rewind: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    start: bool = True
    reason: Reason = ""


class ResumeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`decided`: what was decided, or would be; null: nothing is stopped. `runs`: those under way."""

    decided: resume_action.ResumeDone | None
    runs: list[str]
    dry_run: bool


@decisions.post(f"{CHAIN}/resume")
def resume_chain(call: ApiCall[NoQuery, ResumeBody]) -> ResumeAnswer:
    """Decide about a chain that a gate or its samples stopped, and let it go on."""
    body, (file, chain) = call.body, _opened(call)
    asked = resume_action.ResumeRequest(
        decision=body.decision,
        rewind=body.rewind,
        stage=chain.key.stage,
        branch=chain.key.branch,
        only_record=not body.start,
    )
    if body.dry_run:
        decided = resume_action.plan_resume(file, asked, now=call.now)
        return ResumeAnswer(decided=decided, runs=[], dry_run=True)
    decided = resume_action.resume(file, asked, who=call.author, now=call.now, reason=body.reason)
    runs = _begun(call, file, chain) if body.start else []
    return ResumeAnswer(decided=decided, runs=runs, dry_run=False)


class RepairBody(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`skipped`: also what a gate or a person left out on purpose."""

    skipped: bool = False


class RepairAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`plan`: what is trained of what has arrived; `runs`: those that do it."""

    plan: repair_action.RepairDone
    runs: list[str]


@decisions.post(f"{CHAIN}/repair")
def repair_chain(call: ApiCall[NoQuery, RepairBody]) -> RepairAnswer:
    """Train what was stepped over and has arrived since, on top of the head."""
    body, (file, chain) = call.body, _opened(call)
    plan = repair_action.plan_repair(chain, skipped=body.skipped, now=call.now)
    found = repair_action.repair_done(chain, plan, dry_run=body.dry_run)
    if body.dry_run or not plan.repairs:
        return RepairAnswer(plan=found, runs=[])
    how = repair_action.begin_repair_of(chain.dag_id, skipped=body.skipped)
    return RepairAnswer(plan=found, runs=_begun(call, file, chain, how))


class PruneBody(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`keep_latest`: keep the newest so many, instead of what the pipeline's retention says."""

    keep_latest: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


@decisions.post(f"{CHAIN}/prune", role=Role.ADMIN)
def prune_chain(call: ApiCall[NoQuery, PruneBody]) -> prune_action.PruneDone:
    """Delete the files of checkpoints that the pipeline's retention does not keep; the ledger keeps what they were."""
    _, chain = _opened(call)
    if call.body.dry_run:
        return prune_action.plan_prune([chain], call.body.keep_latest, now=call.now)
    return prune_action.prune([chain], call.body.keep_latest, who=call.author, now=call.now)


class StartAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`runs`: those of the chain's DAG under way now; none: it has nothing to do that nothing else triggers.
    `waits_for`: why they do not begin at once; null: nothing keeps them."""

    runs: list[str]
    waits_for: str | None


class StartBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An empty body: there is nothing to choose."""


@decisions.post(f"{CHAIN}/start")
def start_chain(call: ApiCall[NoQuery, StartBody]) -> StartAnswer:
    """Begin to train a chain, or find the run that does: as `trainflow start` does where an engine is alive.

    It is trained with what it was started with last (`start --set`), a branch with what it was forked with.
    """
    file, chain = _opened(call)
    runs = _begun(call, file, chain)
    alive = running_engine(call.workspace.project.home) is not None or not call.workspace.database.is_sqlite
    waits_for = None if alive else "no engine is alive: 'trainflow standalone' or 'trainflow start PIPELINE'"
    return StartAnswer(runs=runs, waits_for=waits_for)


def _begun(call: ApiCall[Any, Any], file: OpenedPipeline, chain: PipelineChain, how: Any = begin) -> list[str]:
    """Have the file be current, begin or find its runs; those of the chain's DAG. Raises InputError for a branch that
    is not whole."""
    file = as_branch(file, chain.key.branch)
    assert file.parsed is not None
    source = DagSource(file.name, dict(file.overrides))
    keep_in_database(call.workspace, source, file.parsed, call.now)
    how(call.workspace, source, call.now)
    call.workspace.wake_engine()
    return [
        run.run_id
        for state in ("running", "queued")
        for run in list_runs(call.workspace, chain.dag_id, call.now, state=state).runs
    ]


class StopBody(DryRun, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`at_once`: attempts that are at work are not waited for."""

    at_once: bool = False


class StopAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`pid`: of the engine that was told to stop, or would be; null: none is alive on this host."""

    pid: int | None
    dry_run: bool


@engine.post("/engine/stop", role=Role.ADMIN)
def stop_engine(call: ApiCall[NoQuery, StopBody]) -> StopAnswer:
    """Have the engine of this home stop in good order, and with it the API server that it started."""
    home = call.workspace.project.home
    if call.body.dry_run:
        return StopAnswer(pid=running_engine(home), dry_run=True)
    return StopAnswer(pid=tell_to_stop(home, at_once=call.body.at_once), dry_run=False)
