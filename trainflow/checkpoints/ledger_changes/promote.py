"""Promote: give a checkpoint of the line a name. Its files are kept for as long as it has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from trainflow.checkpoints.commit.gates import (
    parse_condition,
    previous_of,
)
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, Promotion
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.errors import InputError
from trainflow.identifiers import check_name


class Promote(msgspec.Struct, frozen=True):
    """Which checkpoints get an alias: those whose metrics meet every condition of `when` (none: all of them).

    Raises InputError for a condition or an alias that cannot be. MLflow takes letters, digits, `_` and `-`.
    """

    alias: str
    when: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_alias(self.alias)
        for condition in self.when:
            parse_condition(condition)

    def meets(self, metrics: Mapping[str, float], previous: Mapping[str, float]) -> bool:
        """Whether a checkpoint with these metrics gets it."""
        return not any(parse_condition(each).failure(metrics, previous) for each in self.when)


def check_alias(alias: str) -> str:
    """The alias. Raises InputError for one that MLflow would refuse: `latest`, `v1`, a dot."""
    check_name(alias, "alias")
    reserved = alias.lower() == "latest" or (alias[:1].lower() == "v" and alias[1:].isdigit())
    if "." in alias or reserved:
        raise InputError(f"{alias!r} cannot be an alias: write letters, digits, _ and -; not 'latest', 'v1'")
    return alias


def promote(
    ledger: Ledger, checkpoint_id: str, alias: str, *, by: Author, now: datetime, reason: str = ""
) -> Promotion | None:
    """Make `alias` name a checkpoint; None when it does already, so that a retry may ask again.

    Raises CheckpointError for a checkpoint that is not on the line or has no files any more.
    """

    def make(state: ChainState) -> Promotion | None:
        if state.promoted.get(alias) == checkpoint_id:
            return None
        return Promotion(
            **state.header(by, now),
            checkpoint_id=checkpoint_id,
            alias=alias,
            reason=reason,
        )

    return ledger.append(make)


def promote_what_was_left_out(ledger: Ledger, promotes: Sequence[Promote], *, by: Author, now: datetime) -> list[str]:
    """Give the head the names that its commit did not live to give, where nothing else has happened since: a run whose
    database was deleted never commits again. Returns the names. Raises LedgerCorrupt, StoreFailure."""
    head = ledger.state().head
    if not promotes or head is None or (head.accepted is not None and not head.accepted.misnamed):
        # what gates refused gets a name from a person
        return []
    since = ledger.since(head.sequence)
    if not all(isinstance(entry, Promotion) and entry.checkpoint_id == head.id for entry in since):
        return []
    return promote_head(ledger, head, promotes, by, now)


def promote_head(ledger: Ledger, head: Checkpoint, promotes: Sequence[Promote], by: Author, now: datetime) -> list[str]:
    """Returns those that it did not have."""
    kept = ledger.find(head.parent_id) if head.parent_id else None
    if head.parent_id and kept is None:
        # pruned, which comes after the promotion
        return []
    parent = ledger.checkpoint(kept.id) if kept else None
    metrics = {**head.metrics, **head.evaluation}
    previous = previous_of(head.metrics, head.evaluation, parent)
    met = [each for each in promotes if each.meets(metrics, previous)]
    return [
        each.alias
        for each in met
        if promote(ledger, head.id, each.alias, by=by, now=now, reason="; ".join(each.when)) is not None
    ]
