"""The part of `trainflow repair` about a ledger that has lost entries: what is left, and going on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.person_author import person
from trainflow.cli.render.output import print_json, text
from trainflow.pluralize import agreeing, counted

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.actions.chains.accept_loss import LossDone, LossPlan
    from trainflow.checkpoints.actions.accept_loss import Damage
    from trainflow.checkpoints.ledger.entries import Checkpoint
    from trainflow.workspace.pipelines import PipelineChain


def accept(chain: PipelineChain, now: datetime, *, yes: bool, reason: str, as_json: bool) -> int:
    """Show what is lost; with `yes` put right what can be, and accept the rest. Raises InputError while a run of the
    chain has not ended."""
    from trainflow.actions.chains.accept_loss import accept_loss, plan_accept_loss

    plan = plan_accept_loss(chain)
    done = accept_loss(plan, who=person(), now=now, reason=reason) if yes else plan.outcome(None)
    if as_json:
        print_json(done)
    elif plan.damage is None:
        typer.echo(f"{chain.key}: nothing is missing in the ledger")
    else:
        _show(plan, plan.damage, done, accepted=yes)
    return 0


def _show(plan: LossPlan, damage: Damage, done: LossDone, *, accepted: bool) -> None:
    from trainflow.checkpoints.ledger.completeness import entries_named

    chain, head = plan.chain, plan.head
    for sentence in _sentences(damage):
        typer.echo(f"{chain.key}: {sentence}")
    goes_on = f"checkpoint {head.id}, trained up to {text(head.watermark)}" if head else "nothing: it begins anew"
    typer.echo(f"{chain.key}: it {'goes' if accepted else 'would go'} on from {goes_on}")
    if done.entry is not None:
        typer.echo(f"{chain.key}: {entries_named([done.entry])} keeps what was lost; 'trainflow audit' tells it")
    elif not accepted:
        typer.echo("nothing was changed: restore a backup where there is one; otherwise '--yes' does this")


def _sentences(damage: Damage) -> list[str]:
    from trainflow.checkpoints.ledger.completeness import entries_named

    found = []
    if damage.restored:
        numbers = [copy.entry.sequence for copy in damage.restored]
        found.append(f"{entries_named(numbers)} can be put back as {agreeing(len(numbers), 'it was', 'they were')}")
    first, last = damage.state.sequence + 1, damage.newest.sequence
    if last >= first:
        lost = range(first, last + 1)
        are = agreeing(len(lost), "is", "are")
        knows = f"{damage.newest.what} knows of entry {last}"
        found.append(f"{entries_named(lost)} {are} lost or cannot be tied to what is left: {knows}")
    if damage.untied:
        found.append(f"{entries_named(damage.untied)} {agreeing(len(damage.untied), 'is', 'are')} there and set aside")
    found += [
        f"checkpoint {each.id}, {_trained(each)}, is known by its copy and whole: committed again"
        for each in damage.recovered
    ]
    found += [f"checkpoint {name} is lost ({what}); its files are left alone" for name, what in damage.lost.items()]
    if damage.is_lossy:
        found.append("promotions, rewinds and skips among the lost entries are gone, too: look, and make them again")
    return found


def _trained(entry: Checkpoint) -> str:
    return f"{counted(len(entry.split.partitions), 'partition')} up to {text(entry.split.end)}"
