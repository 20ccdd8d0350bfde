"""The part of `trainflow repair` about a ledger that has lost entries: what is left, and going on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.person_author import person
from trainflow.cli.render.output import print_json, text
from trainflow.pluralize import agreeing, counted

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.checkpoints.actions.accept_loss import Damage
    from trainflow.checkpoints.ledger.entries import Checkpoint, Loss
    from trainflow.workspace.pipelines import PipelineChain


def accept(chain: PipelineChain, now: datetime, *, yes: bool, reason: str, as_json: bool) -> int:
    """Show what is lost; with `yes` put right what can be, and accept the rest. Raises InputError while a run of the
    chain has not ended."""
    from trainflow.actions.chains.accept_loss import accept_loss
    from trainflow.checkpoints.actions.accept_loss import damage_of

    damage, entry = damage_of(chain.ledger()), None
    if damage is not None and yes:
        entry = accept_loss(chain, damage, who=person(), now=now, reason=reason)
    if as_json:
        print_json(_facts(chain, damage, entry))
    elif damage is None:
        typer.echo(f"{chain.key}: nothing is missing in the ledger")
    else:
        _show(chain, damage, entry, done=yes)
    return 0


def _show(chain: PipelineChain, damage: Damage, entry: Loss | None, *, done: bool) -> None:
    from trainflow.checkpoints.ledger.completeness import entries_named

    for sentence in _sentences(damage):
        typer.echo(f"{chain.key}: {sentence}")
    head = _head(damage)
    goes_on = f"checkpoint {head.id}, trained up to {text(head.watermark)}" if head else "nothing: it begins anew"
    typer.echo(f"{chain.key}: it {'goes' if done else 'would go'} on from {goes_on}")
    if entry is not None:
        typer.echo(f"{chain.key}: {entries_named([entry.sequence])} keeps what was lost; 'trainflow audit' tells it")
    elif not done:
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


def _head(damage: Damage) -> Checkpoint | None:
    return damage.recovered[-1] if damage.recovered else damage.state.head


def _facts(chain: PipelineChain, damage: Damage | None, entry: Loss | None) -> dict[str, Any]:
    head = chain.ledger().state().head if damage is None else _head(damage)
    first = None if damage is None or not damage.is_lossy else damage.state.sequence + 1
    return {
        "chain": str(chain.key),
        "whole": damage is None,
        "restored": [copy.entry.sequence for copy in damage.restored] if damage else [],
        "recovered": [each.id for each in damage.recovered] if damage else [],
        "first": first,
        "last": None if first is None or damage is None else max(first, damage.newest.sequence),
        "untied": damage.untied if damage else [],
        "lost": [{"id": name, "evidence": what} for name, what in damage.lost.items()] if damage else [],
        "head_id": head.id if head else None,
        "watermark": head.watermark if head else None,
        "entry": entry.sequence if entry else None,
    }
