"""A chain that its samples stopped: leave out what is missing or not good, by a person's decision."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Skip
from trainflow.errors import InputError
from trainflow.insight.chains.sample_stop import SampleStop, sample_stop, step_over
from trainflow.messages.notice import Event, Notice
from trainflow.metadata import notification_queries
from trainflow.pluralize import counted
from trainflow.samples.partitions import label
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain


class _StoppedBySamples(NamedTuple):
    chain: PipelineChain
    stop: SampleStop
    head_id: str | None


def leave_out(
    file: OpenedPipeline,
    stage: str | None,
    branch: str | None,
    *,
    asked: str,
    who: Author,
    now: datetime,
    reason: str = "",
) -> tuple[ChainKey, str] | None:
    """Step over what stops the one chain that is stopped: (the chain, what was decided). `asked`: --skip, or what else
    was asked for, and then it is refused with what to do instead; empty: nothing (None), then the next run looks at the
    samples again. Raises InputError, also where no chain is stopped; ChainMoved, StoreFailure."""
    stopped = _one(file, stage, branch, now)
    if not asked:
        return None
    if asked != "--skip":
        raise InputError(_instead(stopped, asked))
    chain, stop = stopped.chain, stopped.stop
    entry = step_over(chain.ledger(), stop, expected_head=stopped.head_id, by=chain.by(who), now=now, reason=reason)
    stretch = f"{label(stop.start)} to {label(stop.end)}"
    if entry is None:
        return chain.key, f"{stretch} was left out before"
    sentence = f"{stretch} is left out: it is {stop.problem}"
    _tell(stopped, entry, sentence, now)
    return chain.key, sentence


def _one(file: OpenedPipeline, stage: str | None, branch: str | None, now: datetime) -> _StoppedBySamples:
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
        f"nothing was started. 'trainflow start' trains what is ready, and tries a run again that failed of something "
        f"else; 'trainflow why {file.name}' says of what"
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
    mend = f"mend the samples, or change {cause}, and 'trainflow start'; or leave it out: --skip"
    match asked:
        case "--accept":
            return f"{what}Nothing was trained on it, so there is no checkpoint to accept: {mend}"
        case "--rewind":
            return f"{what}To go back, 'trainflow checkpoints rewind'; to go on, {mend}"
    return f"{what}There is nothing to record: {mend}"


def _tell(stopped: _StoppedBySamples, entry: Skip, sentence: str, now: datetime) -> None:
    """Tell who wants to know of it, where there is a database."""
    database = stopped.chain.workspace.existing_database
    if database is not None:
        notice = _notice(stopped, entry, sentence)
        database.write(lambda connection: notification_queries.add(connection, notice, now))


def _notice(stopped: _StoppedBySamples, entry: Skip, sentence: str) -> Notice:
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
