"""The state of a chain, computed by the audit from raw entries: head, line, promotions, skips, kept checkpoints.

A second implementation on purpose, independent of `ledger.fold`, so that a fault of one shows against the other. What
is wrong is collected, not raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from trainflow.checkpoints.audit.raw_ledger import Raw, RawCheckpoint, RawEntry
from trainflow.checkpoints.audit.timeline import Interval, uncovered


@dataclass
class RawChain:
    """A chain after its last entry."""

    head: str | None = None
    #: the head and its ancestors
    on_line: set[str] = field(default_factory=set)
    #: every checkpoint that was ever committed, by id
    committed: dict[str, RawCheckpoint] = field(default_factory=dict)
    #: those whose files must be there
    kept: dict[str, RawCheckpoint] = field(default_factory=dict)
    #: after the head
    skips: list[Interval] = field(default_factory=list)
    #: what a gate or a person left out, with the number of the entry that says so
    left_out: list[tuple[int, Interval]] = field(default_factory=list)
    #: entries that changed the grid of the samples
    regrids: list[RawEntry] = field(default_factory=list)
    #: gates refused this, and no person has decided yet
    stopped: RawEntry | None = None
    promoted: dict[str, str] = field(default_factory=dict)
    #: the fork or adoption it began with
    start: RawEntry | None = None
    rewinds: int = 0
    #: the highest number that a checkpoint has, or may have had in what was lost
    last_number: int = 0
    #: checkpoints of entries that a person accepted as lost
    lost: set[str] = field(default_factory=set)
    notices: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def line(self) -> list[RawCheckpoint]:
        """The checkpoints from the root to the head."""
        line: list[RawCheckpoint] = []
        name = self.head
        # a corrupt ledger could lead in a circle
        while name is not None and len(line) < len(self.committed):
            found = self.committed.get(name)
            if found is None:
                self.problems.append(f"checkpoint {name}, a parent on the line, is not in the ledger")
                break
            line.append(found)
            name = found.parent_id
        return line[::-1]


def replay(entries: Sequence[Raw]) -> RawChain:
    """Walk the entries."""
    chain = RawChain()
    for place, entry in enumerate(entries):
        if isinstance(entry, RawCheckpoint):
            _commit(chain, entry)
            continue
        match entry.kind:
            case "skip":
                _skip(chain, entry)
            case "regrid":
                _regrid(chain, entry)
            case "stop" | "resume":
                _stop(chain, entry)
            case "promotion":
                _promote(chain, entry)
            case "rewind":
                _rewind(chain, entry)
            case "prune":
                _prune(chain, entry)
            case "loss":
                _lose(chain, entry)
            case _:
                _begin(chain, entry, first=place == 0)
    return chain


def _commit(chain: RawChain, entry: RawCheckpoint) -> None:
    name = entry.id
    entry = _number(chain, entry)
    if entry.parent_id != chain.head:
        chain.problems.append(
            f"checkpoint {name} (entry {entry.sequence}) is a child of {entry.parent_id}, the head was {chain.head}"
        )
    if name in chain.committed:
        chain.problems.append(f"checkpoint {name} was committed twice")
    _check_stop(chain, entry)
    if not entry.fills:
        _check_skips(chain, entry)
        _check_origin(chain, entry)
        chain.skips = []
    chain.head = name
    chain.on_line.add(name)
    chain.committed[name] = chain.kept[name] = entry


def _number(chain: RawChain, entry: RawCheckpoint) -> RawCheckpoint:
    """The checkpoint with its number: one more than the highest before, unless it had one when its entry was lost."""
    due = chain.last_number + 1
    number = entry.number or due
    head = chain.committed.get(chain.head or "")
    first = (head.number if head else 0) + 1 if entry.recovered else due
    if not first <= number <= due:
        chain.problems.append(
            f"checkpoint {entry.id} (entry {entry.sequence}) has number {number}, {due} was due: numbers do not repeat"
        )
    chain.last_number = max(chain.last_number, number)
    return msgspec.structs.replace(entry, number=number)


def _check_stop(chain: RawChain, entry: RawCheckpoint) -> None:
    """What follows a stop was accepted by a person, or the stop is over."""
    refused = chain.stopped.id if chain.stopped else None
    if refused != (entry.id if entry.accepted else None):
        chain.problems.append(
            f"checkpoint {entry.id} (entry {entry.sequence}) "
            + (f"was committed although the chain was stopped over {refused}" if refused else "was never refused")
        )
    chain.stopped = None


def _check_skips(chain: RawChain, entry: RawCheckpoint) -> None:
    for skip in chain.skips:
        if uncovered(skip, entry.split.holes):
            chain.problems.append(
                f"checkpoint {entry.id} (entry {entry.sequence}) does not record {skip} as a hole, which was "
                "skipped before"
            )


def _check_origin(chain: RawChain, entry: RawCheckpoint) -> None:
    forked = chain.start.origin if chain.start else None
    if entry.parent_id is not None or forked is None:
        return
    origin = entry.origin
    if origin is None or (origin.chain == forked.chain and origin != forked):
        chain.problems.append(
            f"checkpoint {entry.id} (entry {entry.sequence}) was not trained from {forked.checkpoint_id}, "
            "which the chain was forked from"
        )


def _skip(chain: RawChain, entry: RawEntry) -> None:
    assert entry.start is not None
    assert entry.end is not None
    if entry.parent_id != chain.head:
        chain.problems.append(f"entry {entry.sequence} skips after {entry.parent_id}, the head was {chain.head}")
    found = Interval(entry.start, entry.end, entry.reason)
    edge = _edge(chain)
    if found.start >= found.end or (edge is not None and found.start != edge):
        chain.problems.append(f"entry {entry.sequence} skips {found}, which is not where the chain ended")
    chain.skips.append(found)
    if entry.refused is not None or entry.by.person:
        chain.left_out.append((entry.sequence, found))
    chain.stopped = None


def _regrid(chain: RawChain, entry: RawEntry) -> None:
    if entry.parent_id != chain.head or chain.head is None:
        chain.problems.append(
            f"entry {entry.sequence} changes the grid after {entry.parent_id}, the head was {chain.head}"
        )
    if entry.watermark != _edge(chain):
        chain.problems.append(f"entry {entry.sequence} regrids somewhere else than where the chain ended")
    chain.regrids.append(entry)


def _stop(chain: RawChain, entry: RawEntry) -> None:
    stops = entry.kind == "stop"
    if entry.parent_id != chain.head:
        chain.problems.append(f"entry {entry.sequence} is about {entry.parent_id}, the head was {chain.head}")
    if stops == (chain.stopped is not None):
        again = "stops a chain that is stopped" if stops else "resumes a chain that is not stopped"
        chain.problems.append(f"entry {entry.sequence} {again}")
    chain.stopped = entry if stops else None


def _edge(chain: RawChain) -> datetime | None:
    """Where the chain ends."""
    if chain.skips:
        return chain.skips[-1].end
    last = chain.committed.get(chain.head) if chain.head else chain.start
    return last.watermark if last else None


def _promote(chain: RawChain, entry: RawEntry) -> None:
    name = entry.checkpoint_id
    if name not in chain.kept or name not in chain.on_line:
        chain.problems.append(f"entry {entry.sequence} promotes {name}, which is not on the line or has no files")
    chain.promoted[entry.alias] = name


def _rewind(chain: RawChain, entry: RawEntry) -> None:
    target = entry.to_checkpoint_id
    if target is not None and target not in chain.on_line:
        chain.problems.append(
            f"entry {entry.sequence} rewinds to {target}, which "
            + ("was never committed" if target not in chain.committed else "is not an ancestor of the head")
        )
    while chain.head is not None and chain.head != target and chain.head in chain.on_line:
        chain.on_line.discard(chain.head)
        chain.head = chain.committed[chain.head].parent_id
    chain.head = target
    chain.skips = []
    last = chain.committed[target].sequence if target in chain.committed else 0
    chain.left_out = [each for each in chain.left_out if each[0] < last]
    chain.regrids = [each for each in chain.regrids if each.sequence < last]
    chain.stopped = None
    chain.rewinds += 1
    chain.promoted = {alias: name for alias, name in chain.promoted.items() if name in chain.on_line}
    for alias, name in entry.promoted.items():
        if name not in chain.kept or name not in chain.on_line or alias in chain.promoted:
            chain.problems.append(f"entry {entry.sequence} gives {alias!r} back to {name}, which cannot have it")
        chain.promoted[alias] = name


def _prune(chain: RawChain, entry: RawEntry) -> None:
    for name in entry.checkpoint_ids:
        if chain.kept.pop(name, None) is None or name == chain.head or name in chain.promoted.values():
            chain.problems.append(f"entry {entry.sequence} prunes {name}, which it must not")


def _lose(chain: RawChain, entry: RawEntry) -> None:
    if entry.parent_id != chain.head:
        chain.problems.append(f"entry {entry.sequence} accepts a loss after {entry.parent_id}, not after the head")
    chain.lost.update(entry.checkpoint_ids)
    chain.last_number += entry.last - entry.first + 1
    were = f"entry {entry.first} of an earlier ledger was"
    if entry.first != entry.last:
        were = f"entries {entry.first} to {entry.last} of an earlier ledger were"
    who = entry.by.person or "a person"
    why = f" ({entry.reason})" if entry.reason else ""
    gone = f", and with them {', '.join(entry.checkpoint_ids)}" if entry.checkpoint_ids else ""
    chain.notices.append(f"{were} lost{gone}: accepted by {who} in entry {entry.sequence}{why}")


def _begin(chain: RawChain, entry: RawEntry, *, first: bool) -> None:
    if not first or entry.sequence != 1:
        chain.problems.append(f"entry {entry.sequence} is a {entry.kind}, which only the first entry can be")
    chain.start, chain.last_number = entry, entry.number
