"""The part of `trainflow resume` about a chain that its samples stopped: leave out what is missing or not good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from trainflow.cli.person import person
from trainflow.errors import InputError
from trainflow.pluralize import counted

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.entries import Skip
    from trainflow.insight.sample_stop import SampleStop
    from trainflow.workspace.pipelines import Chain, PipelineFile


class _Stopped(NamedTuple):
    chain: Chain
    stop: SampleStop
    head_id: str | None


def leave_out(file: PipelineFile, stage: str | None, branch: str | None, *, asked: str, reason: str) -> None:
    """Step over what stops the one chain that is stopped. `asked`: --skip, or what else was asked for, and then it is
    refused with what to do instead; empty: nothing, then the next run looks at the samples again. Raises InputError,
    also where no chain is stopped."""
    from trainflow.samples.partitions import label

    stopped = _one(file, stage, branch)
    if not asked:
        return
    if asked != "--skip":
        raise InputError(_instead(stopped, asked))
    entry = _step_over(stopped, reason)
    start, end, name = label(stopped.stop.start), label(stopped.stop.end), stopped.chain.key
    if entry is None:
        typer.echo(f"{name}: {start} to {end} was left out before")
        return
    sentence = f"{start} to {end} is left out: it is {stopped.stop.problem}"
    typer.echo(f"{name}: {sentence}")
    _tell(stopped, entry, sentence)


def _one(file: PipelineFile, stage: str | None, branch: str | None) -> _Stopped:
    found = [stopped for chain in file.chosen(stage, branch) if (stopped := _look(chain)) is not None]
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
        f"nothing was started. 'trainflow start' trains what is ready, and tries a run again that failed of something "
        f"else; 'trainflow why {file.name}' says of what"
    )


def _look(chain: Chain) -> _Stopped | None:
    from trainflow.clock import SystemClock
    from trainflow.insight.sample_stop import sample_stop

    samples, ledger = chain.samples, chain.ledger()
    state = ledger.state()
    if samples is None or (chain.adopt is not None and state.sequence == 0):
        return None
    stop = sample_stop(chain.document, ledger, samples, chain.project.root, SystemClock().now())
    return None if stop is None else _Stopped(chain, stop, state.head.id if state.head else None)


def _instead(stopped: _Stopped, asked: str) -> str:
    from trainflow.samples.partitions import label

    where = f"{label(stopped.stop.start)} to {label(stopped.stop.end)}"
    what = f"{stopped.chain.key} is stopped by its samples: {where} is {stopped.stop.problem}. "
    cause = "samples.checks" if stopped.stop.refused else "samples.gaps"
    mend = f"mend the samples, or change {cause}, and 'trainflow start'; or leave it out: --skip"
    match asked:
        case "--accept":
            return f"{what}Nothing was trained on it, so there is no checkpoint to accept: {mend}"
        case "--rewind":
            return f"{what}To go back, 'trainflow checkpoints rewind'; to go on, {mend}"
    return f"{what}There is nothing to record: {mend}"


def _step_over(stopped: _Stopped, reason: str) -> Skip | None:
    from trainflow.clock import SystemClock
    from trainflow.insight.sample_stop import step_over

    return step_over(
        stopped.chain.ledger(),
        stopped.stop,
        expected_head=stopped.head_id,
        by=person(stopped.chain.dag_id),
        now=SystemClock().now(),
        reason=reason,
    )


def _tell(stopped: _Stopped, entry: Skip, sentence: str) -> None:
    """Who wants to know hears of it, where there is a database."""
    from trainflow.clock import SystemClock
    from trainflow.metadata import notification_queries
    from trainflow.workspace.workspace import existing_database

    chain = stopped.chain
    with existing_database(chain.project, chain.settings) as database:
        if database is not None:
            notice, now = _notice(stopped, entry, sentence), SystemClock().now()
            database.write(lambda connection: notification_queries.add(connection, notice, now))


def _notice(stopped: _Stopped, entry: Skip, sentence: str) -> Any:
    from trainflow.messages.notice import Event, Notice

    key, dag_id = stopped.chain.key, stopped.chain.dag_id
    return Notice(
        event=Event.RESUMED,
        key=f"entry {entry.sequence}",
        sentence=f"{dag_id}: {sentence}",
        pipeline=key.pipeline,
        stage=key.stage,
        branch=key.branch,
        dag_id=dag_id,
        facts={
            "decision": "skip",
            "person": entry.by.person,
            "start": entry.start.isoformat(),
            "end": entry.end.isoformat(),
            "reasons": [stopped.stop.problem],
        },
    )
