"""`trainflow resume`: say what becomes of a chain that a gate or its samples stopped, and let it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides
from trainflow.cli.person import person
from trainflow.errors import InputError
from trainflow.pluralize import counted

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.entries import LedgerEntry, Stop
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.workspace.pipelines import Chain, PipelineFile


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("resume")(resume)


def resume(
    pipeline: str = PIPELINE,
    accept: bool = typer.Option(
        False, "--accept", help="Commit the checkpoint although gates refused it; nothing is trained again."
    ),
    skip: bool = typer.Option(
        False, "--skip", help="Leave out the split, or the samples that stopped it; the next split records a hole."
    ),
    rewind: int | None = typer.Option(
        None, "--rewind", metavar="N", min=1, help="Go back N checkpoints and train forward again."
    ),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why, for the ledger."),
    no_start: bool = typer.Option(False, "--no-start", help="Only record the decision; the next start goes on."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    overrides: list[str] = OVERRIDES,
    detach: bool = typer.Option(False, "--detach", help="Train in the background and give the terminal back."),
    plain: bool = typer.Option(False, "--plain", help="Plain lines instead of the live panel."),
) -> int:
    """Decide about a chain that is stopped, and go on.

    Stopped by a gate or by its samples; goes on as 'trainflow start' does.

    Without an option the split is trained again: after a change of the code, the parameters, the samples or the gates.
    The decision, who made it and why are in the ledger. A chain that is stopped by its samples (a gap with
    gaps: {then: fail}, a partition that a check refuses) goes on with --skip. Where nothing is stopped, nothing is
    done: 'trainflow start' trains, also once samples are mended.

    Exit codes: 0 done, 1 the chain or a task failed, 2 wrong input, 130 interrupted.
    """
    from trainflow.cli.commands.resume_samples import leave_out
    from trainflow.cli.commands.start import train
    from trainflow.workspace.pipelines import open_pipeline

    if sum((accept, skip, rewind is not None)) > 1:
        raise InputError("--accept, --skip and --rewind are three decisions: take one of them")
    file = open_pipeline(pipeline, parse_overrides(overrides))
    stopped = _stopped(file, stage, branch)
    if stopped is None:
        asked = "--skip" if skip else "--accept" if accept else "--rewind" if rewind is not None else ""
        leave_out(file, stage, branch, asked=asked or ("--no-start" if no_start else ""), reason=reason)
    if stopped is not None:
        decision = _decide(stopped, accept=accept, skip=skip, rewind=rewind, reason=reason)
        typer.echo(f"{stopped.chain.key}: {decision.sentence}")
        _pass_on(stopped, decision)
    if no_start:
        return 0
    return train(file.path, overrides, detach=detach, plain=plain)


class _Stopped(NamedTuple):
    chain: Chain
    ledger: Ledger
    stop: Stop


class _Decision(NamedTuple):
    entry: LedgerEntry
    #: what was decided, for people
    sentence: str
    #: accept, skip, rewind, again
    kind: str

    @property
    def run_goes_on(self) -> bool:
        """The run that was refused ends as it was decided: its commit finds the decision."""
        return self.kind != "again"


def _stopped(file: PipelineFile, stage: str | None, branch: str | None) -> _Stopped | None:
    """The stopped chain that is meant; None: none is stopped."""
    named = stage is not None or branch is not None
    found = []
    for chain in [file.one_chain(stage, branch)] if named else file.some_chains():
        ledger = chain.ledger()
        stop = ledger.state().stopped
        if stop is not None:
            found.append(_Stopped(chain, ledger, stop))
    if len(found) > 1:
        names = ", ".join(str(each.chain.key) for each in found)
        raise InputError(
            f"{counted(len(found), 'chain')} of {file.name} are stopped: {names}; choose with --stage or --branch"
        )
    return found[0] if found else None


def _decide(stopped: _Stopped, *, accept: bool, skip: bool, rewind: int | None, reason: str) -> _Decision:
    from trainflow.checkpoints.actions import manual_decisions
    from trainflow.clock import SystemClock
    from trainflow.samples.partitions import label

    ledger, refused, now = stopped.ledger, stopped.stop.id, SystemClock().now()
    by, split = person(stopped.chain.dag_id), stopped.stop.split
    against = "; ".join(stopped.stop.reasons)
    if accept:
        made = manual_decisions.accept(ledger, refused, person=by.person, now=now, reason=reason)
        what = f"checkpoint {made.sequence}, trained up to {label(made.watermark)}, is accepted although {against}"
        return _Decision(made, what, "accept")
    if skip:
        skipped = manual_decisions.skip_refused(ledger, refused, by=by, now=now, reason=reason)
        what = f"{label(skipped.start)} to {label(skipped.end)} is skipped: {against}"
        return _Decision(skipped, what, "skip")
    if rewind is not None:
        back = manual_decisions.rewind_refused(ledger, refused, rewind, by=by, now=now, reason=reason)
        where = f"checkpoint {back.to_checkpoint_id}" if back.to_checkpoint_id else "before the first checkpoint"
        return _Decision(back, f"rewound to {where}: {against}", "rewind")
    again = manual_decisions.try_again(ledger, refused, by=by, now=now, reason=reason)
    what = f"{label(split.start)} to {label(split.end)} is trained again, after: {against}"
    return _Decision(again, what, "again")


def _pass_on(stopped: _Stopped, decision: _Decision) -> None:
    """Tell who wants to know, and let the run that was refused end as it was decided. Where there is no database, or
    not that run, a new run finds the decision in the ledger."""
    from trainflow.clock import SystemClock
    from trainflow.executors.execution_socket import nudge
    from trainflow.workspace.workspace import existing_database

    chain, now = stopped.chain, SystemClock().now()
    with existing_database(chain.project, chain.settings) as database:
        if database is None:
            return
        database.write(lambda connection: _write(connection, stopped, decision, now))
    nudge(chain.project.home.socket_path)


def _write(connection: Any, stopped: _Stopped, decision: _Decision, now: Any) -> None:
    from trainflow.metadata import notification_queries, run_queries
    from trainflow.metadata.dag_queries import Versions
    from trainflow.states import DagRunState

    notification_queries.add(connection, _notice(stopped, decision), now)
    by = stopped.stop.by
    run = run_queries.find(connection, by.dag_id, by.run_id) if by.dag_id else None
    if run is None or run.state != DagRunState.FAILED or not decision.run_goes_on:
        return
    document, _ = Versions().get(connection, run.version_id)
    commits = {task.task_id for task in document.tasks if task.role == "commit"}
    run_queries.clear(connection, run.id, now, document.with_downstream(commits))


def _notice(stopped: _Stopped, decision: _Decision) -> Any:
    from trainflow.messages.notice import Event, Notice

    return Notice(
        event=Event.RESUMED,
        key=f"entry {decision.entry.sequence}",
        sentence=f"{stopped.chain.dag_id}: {decision.sentence}",
        **stopped.chain.key.names,
        dag_id=stopped.chain.dag_id,
        facts={
            "decision": decision.kind,
            "person": person(stopped.chain.dag_id).person,
            "checkpoint_id": stopped.stop.id,
            "reasons": stopped.stop.reasons,
        },
    )
