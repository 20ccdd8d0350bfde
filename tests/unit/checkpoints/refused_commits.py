"""Commits that gates refuse, for tests of what follows."""

from __future__ import annotations

from typing import Any

import msgspec

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.commit.commit import STEPS
from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.ledger.entries import (
    Author,
    SplitSummary,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.testing.chains import ChainWriter, day, split_of

ME = Author(person="ada", hostname="here")


PREFIXES = range(len(STEPS) + 1)


BAD = {"auc": 0.5}


def state_of(writer: ChainWriter) -> ChainState:
    return Ledger(writer.store, writer.chain).state()


def refused(writer: ChainWriter, action: str, **more: Any) -> CommitRequest:
    """The next split, refused by a gate."""
    head = state_of(writer).head
    return writer.request(parent=head, metrics=BAD, gates=(Gate("auc >= 0.6", action),), **more)


def after_skips(writer: ChainWriter, days: int = 1) -> SplitSummary:
    """The split that comes after the skips of a chain: it records them."""
    state = state_of(writer)
    assert state.edge is not None
    start = state.watermark or state.skips[0].start
    first = (state.edge - day(0)).days
    return msgspec.structs.replace(split_of(first, days), start=start, holes=state.skips)


def sound(writer: ChainWriter) -> None:
    """The audit from the raw entries agrees with the fold."""
    report = audit(Ledger(writer.store, writer.chain), None)
    state = state_of(writer)
    assert report.problems == []
    assert report.head_id == (state.head.id if state.head else None)
    assert [(each.start, each.end) for each in report.skips] == [(each.start, each.end) for each in state.skips]
    assert any("is stopped" in notice for notice in report.notices) is (state.stopped is not None)


def stopped_over(writer: ChainWriter) -> str:
    stop = state_of(writer).stopped
    assert stop is not None
    return stop.id
