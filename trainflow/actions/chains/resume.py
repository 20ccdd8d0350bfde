"""Decide what becomes of a chain that a gate stopped, or that its samples stopped.

The decision, who made it and why are in the ledger. The run that was refused ends as it was decided, where the database
still has it; otherwise a new run finds the decision in the ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec
from sqlalchemy import Connection

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, LedgerEntry, Skip, Stop
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes import manual_decisions
from trainflow.errors import InputError
from trainflow.humanize import counted
from trainflow.insight.chains.next_run import SampleStop, sample_stop, step_over
from trainflow.messages.notice import Event, Notice
from trainflow.metadata.queries import notification_queries, run_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.samples.partitions import label
from trainflow.states import DagRunState
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain


class _StoppedBySamples(NamedTuple):
    chain: PipelineChain
    stop: SampleStop
    head_id: str | None


def _leave_out(
    file: OpenedPipeline,
    stage: str | None,
    branch: str | None,
    *,
    asked: str,
    who: Author,
    now: datetime,
    reason: str,
    dry_run: bool,
) -> tuple[ChainKey, str] | None:
    """Step over what stops the one chain that is stopped: (the chain, what was decided). `asked`: --skip, or what else
    was asked for, and then it is refused with what to do instead; empty: nothing (None), then the next run looks at the
    samples again. Raises InputError, also where no chain is stopped; ChainMoved, StoreFailure."""
    stopped = _one_stopped(file, stage, branch, now)
    if not asked:
        return None
    if asked != "--skip":
        raise InputError(_instead(stopped, asked))
    chain, stop = stopped.chain, stopped.stop
    ledger = chain.ledger(dry_run=dry_run)
    entry = step_over(ledger, stop, expected_head=stopped.head_id, by=chain.by(who), now=now, reason=reason)
    stretch = f"{label(stop.start)} to {label(stop.end)}"
    if entry is None:
        return chain.key, f"{stretch} was left out before"
    sentence = f"{stretch} is left out: it is {stop.problem}"
    if not dry_run:
        _tell(stopped, entry, sentence, now)
    return chain.key, sentence


def _one_stopped(file: OpenedPipeline, stage: str | None, branch: str | None, now: datetime) -> _StoppedBySamples:
    found = [stopped for chain in file.chosen(stage, branch) if (stopped := _look(chain, now)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(each.chain.key) for each in found)
        raise InputError(
            f"{counted(len(found), 'chain')} of {file.name} are stopped by their samples: {names}; choose with --stage "
            "or --branch"
        )
    raise InputError(
        f"no chain of {file.name} is stopped by a gate or by its samples, so there is nothing to decide about, and "
        f"nothing was started. 'trainflow start {file.name}' trains what is ready, and tries a run again that failed "
        f"of something else; 'trainflow why {file.name}' says of what"
    )


def _look(chain: PipelineChain, now: datetime) -> _StoppedBySamples | None:
    samples, ledger = chain.samples, chain.ledger()
    state = ledger.state()
    if samples is None or (chain.adopt is not None and state.sequence == 0):
        return None
    stop = sample_stop(chain.document, ledger, samples, chain.root, now)
    return None if stop is None else _StoppedBySamples(chain, stop, state.head.id if state.head else None)


def _instead(stopped: _StoppedBySamples, asked: str) -> str:
    where = f"{label(stopped.stop.start)} to {label(stopped.stop.end)}"
    what = f"{stopped.chain.key} is stopped by its samples: {where} is {stopped.stop.problem}. "
    cause = "samples.checks" if stopped.stop.refused else "samples.gaps"
    start = f"trainflow start {stopped.chain.key.start_arguments}"
    mend = f"mend the samples, or change {cause}, and '{start}'; or leave it out: --skip"
    match asked:
        case "--accept":
            return f"{what}Nothing was trained on it, so there is no checkpoint to accept: {mend}"
        case "--rewind":
            return f"{what}To go back, 'trainflow checkpoints rewind {stopped.chain.key.arguments}'; to go on, {mend}"
    return f"{what}There is nothing to record: {mend}"


def _tell(stopped: _StoppedBySamples, entry: Skip, sentence: str, now: datetime) -> None:
    """Tell who wants to know of it, where there is a database."""
    database = stopped.chain.workspace.existing_database
    if database is not None:
        notice = _skip_notice(stopped, entry, sentence)
        database.write(lambda connection: notification_queries.add(connection, notice, now))


def _skip_notice(stopped: _StoppedBySamples, entry: Skip, sentence: str) -> Notice:
    return Notice(
        event=Event.RESUMED,
        key=f"entry {entry.sequence}",
        sentence=f"{stopped.chain.dag_id}: {sentence}",
        **stopped.chain.key.names,
        dag_id=stopped.chain.dag_id,
        facts={
            "decision": "skip",
            "person": entry.by.person,
            "start": entry.start.isoformat(),
            "end": entry.end.isoformat(),
            "reasons": [stopped.stop.problem],
        },
    )


#: accept: commit the checkpoint that gates refused; skip: leave out its split, or the samples that stopped the chain;
#: rewind: go back some checkpoints; again: train the split again
Decision = Literal["accept", "skip", "rewind", "again"]


class ResumeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decides. `rewind`: so many checkpoints, with the decision of that name; `only_record`: nothing is
    begun afterwards."""

    decision: Decision = "again"
    rewind: int = 0
    stage: str | None = None
    branch: str | None = None
    only_record: bool = False

    @property
    def option(self) -> str:
        """The option as it is typed; empty: the next run is to look again."""
        if self.decision == "again":
            return "--no-start" if self.only_record else ""
        return f"--{self.decision}"


class ResumeDone(msgspec.Struct, frozen=True):
    """What was decided about which chain, or would be, in a sentence."""

    chain: str
    decision: Decision
    sentence: str


class _StoppedByGate(NamedTuple):
    chain: PipelineChain
    ledger: Ledger
    stop: Stop


class _Decided(NamedTuple):
    entry: LedgerEntry
    decision: Decision
    sentence: str


def plan_resume(file: OpenedPipeline, asked: ResumeRequest, *, now: datetime) -> ResumeDone | None:
    """What `resume` would record; it raises what that does."""
    return _resume(file, asked, Author(), now, "", dry_run=True)


def resume(
    file: OpenedPipeline, asked: ResumeRequest, *, who: Author, now: datetime, reason: str = ""
) -> ResumeDone | None:
    """Record the decision about the chain of the file that is stopped; None: its samples stopped it, and the next run
    is to look at them again. Raises InputError, also where no chain is stopped; ChainMoved, StoreFailure."""
    return _resume(file, asked, who, now, reason, dry_run=False)


def _resume(
    file: OpenedPipeline, asked: ResumeRequest, who: Author, now: datetime, reason: str, *, dry_run: bool
) -> ResumeDone | None:
    stopped = _stopped(file, asked.stage, asked.branch, dry_run=dry_run)
    if stopped is None:
        left_out = _leave_out(
            file, asked.stage, asked.branch, asked=asked.option, who=who, now=now, reason=reason, dry_run=dry_run
        )
        return ResumeDone(str(left_out[0]), "skip", left_out[1]) if left_out is not None else None
    decided = _decide(stopped, asked, who, now, reason)
    if not dry_run:
        _pass_on(stopped, decided, who, now)
    return ResumeDone(str(stopped.chain.key), decided.decision, decided.sentence)


def _stopped(file: OpenedPipeline, stage: str | None, branch: str | None, *, dry_run: bool) -> _StoppedByGate | None:
    """The stopped chain that is meant; None: none is stopped."""
    named = stage is not None or branch is not None
    found = []
    for chain in [file.one_chain(stage, branch)] if named else file.some_chains():
        ledger = chain.ledger(dry_run=dry_run)
        stop = ledger.state().stopped
        if stop is not None:
            found.append(_StoppedByGate(chain, ledger, stop))
    if len(found) > 1:
        names = ", ".join(str(each.chain.key) for each in found)
        raise InputError(
            f"{counted(len(found), 'chain')} of {file.name} are stopped: {names}; choose with --stage or --branch"
        )
    return found[0] if found else None


def _decide(stopped: _StoppedByGate, asked: ResumeRequest, who: Author, now: datetime, reason: str) -> _Decided:
    ledger, refused, by = stopped.ledger, stopped.stop.id, stopped.chain.by(who)
    against, split = "; ".join(stopped.stop.reasons), stopped.stop.split
    match asked.decision:
        case "accept":
            made = manual_decisions.accept(ledger, refused, person=by.person, now=now, reason=reason)
            upto = label(made.watermark)
            what = f"checkpoint {made.number}, trained up to {upto}, is accepted although {against}"
            return _Decided(made, "accept", what)
        case "skip":
            skipped = manual_decisions.skip_refused(ledger, refused, by=by, now=now, reason=reason)
            what = f"{label(skipped.start)} to {label(skipped.end)} is skipped: {against}"
            return _Decided(skipped, "skip", what)
        case "rewind":
            back = manual_decisions.rewind_refused(ledger, refused, asked.rewind, by=by, now=now, reason=reason)
            head = ledger.checkpoint(back.to_checkpoint_id) if back.to_checkpoint_id else None
            where = f"checkpoint {head.number}" if head else "before the first checkpoint"
            return _Decided(back, "rewind", f"rewound to {where}: {against}")
    again = manual_decisions.retry_refused(ledger, refused, by=by, now=now, reason=reason)
    return _Decided(again, "again", f"{label(split.start)} to {label(split.end)} is trained again, after: {against}")


def _pass_on(stopped: _StoppedByGate, decided: _Decided, who: Author, now: datetime) -> None:
    """Tell who wants to know, and let the run that was refused end as it was decided."""
    workspace = stopped.chain.workspace
    database = workspace.existing_database
    if database is None:
        return
    database.write(lambda connection: _write(connection, stopped, decided, who, now))
    workspace.wake_engine()


def _write(connection: Connection, stopped: _StoppedByGate, decided: _Decided, who: Author, now: datetime) -> None:
    notification_queries.add(connection, _notice(stopped, decided, who), now)
    by = stopped.stop.by
    run = run_queries.find(connection, by.dag_id, by.run_id) if by.dag_id else None
    # a split that is trained again is trained by a run of its own; any other decision is found by the run's commit
    if run is None or run.state != DagRunState.FAILED or decided.decision == "again":
        return
    document, _ = Versions().get(connection, run.version_id)
    commits = {task.task_id for task in document.tasks if task.role == "commit"}
    run_queries.clear(connection, run.id, now, document.with_downstream(commits))


def _notice(stopped: _StoppedByGate, decided: _Decided, who: Author) -> Notice:
    return Notice(
        event=Event.RESUMED,
        key=f"entry {decided.entry.sequence}",
        sentence=f"{stopped.chain.dag_id}: {decided.sentence}",
        **stopped.chain.key.names,
        dag_id=stopped.chain.dag_id,
        facts={
            "decision": decided.decision,
            "person": who.person,
            "checkpoint_id": stopped.stop.id,
            "reasons": stopped.stop.reasons,
        },
    )
