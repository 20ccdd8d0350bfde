"""Promote: give a checkpoint of the line a name. Its files are kept for as long as it has it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from trainflow.checkpoints.commit.conditions import parse_condition
from trainflow.checkpoints.ledger.entries import Author, Promotion
from trainflow.checkpoints.ledger.ledger import Ledger
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
