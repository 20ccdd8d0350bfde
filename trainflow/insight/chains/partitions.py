"""The partitions of a chain's samples, as the storage and the ledger show them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ancestors import TrainedBy, trained_in
from trainflow.checkpoints.ledger.entries import Checkpoint, HoleFilled, LedgerEntry, Regrid, Rewind
from trainflow.checkpoints.ledger.fold import trained_stretches
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import without
from trainflow.clock import ensure_utc
from trainflow.errors import InputError, SampleCheckFailed, SampleUnreadable
from trainflow.pipeline_spec.quantities import parse_moment
from trainflow.samples.partitions import at_or_after, containing, end_of, label, length_label, limit, origin
from trainflow.samples.spec import Samples
from trainflow.samples.splits.split_content import Columns, Hole, SampleFile
from trainflow.samples.table.inventory import InventoryLine, list_partitions, open_inventory
from trainflow.samples.table.readiness import Readiness
from trainflow.workspace.pipelines import PipelineChain

TRAINED = "trained"


class PartitionLine(InventoryLine, frozen=True):
    """One partition, which may also be `trained`; `checkpoint` is the number of the one that was trained on it."""

    checkpoint: int | None = None


class PartitionRange(msgspec.Struct, frozen=True):
    """Neighbours of one state and one reason; `end` is exclusive."""

    start: datetime
    end: datetime
    state: str
    reason: str
    partitions: int
    bytes: int


class PartitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One partition in detail. `problems` are what the checks found; `ok`: it is ready and passes all checks."""

    start: datetime
    end: datetime
    state: str
    reason: str = ""
    ok: bool = False
    problems: list[str] = []
    files: list[SampleFile] = []
    rows: int | None = None
    bytes: int = 0
    fingerprint: str | None = None
    trained_by: TrainedBy | None = None
    #: it has another content than what was trained
    republished: bool = False


class ChainPartitions(msgspec.Struct, frozen=True):
    """The partitions of one chain's samples."""

    chain: ChainKey
    partitions: list[PartitionLine]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The partitions, each with the names of the chain, as programs read them."""
        return [{**self.chain.names, **msgspec.structs.asdict(each)} for each in self.partitions]


def partitions_of(
    chains: Sequence[PipelineChain], since: datetime | None, until: datetime | None, now: datetime
) -> list[ChainPartitions]:
    """Every partition of each chain that starts in `[since, until)`, see `partition_lines`. Raises InputError,
    LedgerCorrupt, StoreFailure, SampleUnreadable."""
    found: dict[ChainKey, list[PartitionLine]] = {}
    for chain in chains:
        found[chain.key] = partition_lines(chain.existing_samples(), chain.ledger(), since, until, chain.root, now)
    return [ChainPartitions(key, lines) for key, lines in found.items()]


def partition_report(chain: PipelineChain, partition: str, now: datetime) -> PartitionReport:
    """What the partition that a person names by its start holds. Raises InputError, LedgerCorrupt, StoreFailure."""
    samples = chain.existing_samples()
    return inspect(samples, chain.ledger(), partition_at(samples, partition), chain.root, now)


def partition_lines(
    samples: Samples, ledger: Ledger, since: datetime | None, until: datetime | None, root: Path, now: datetime
) -> list[PartitionLine]:
    """Every partition that starts in `[since, until)`; by default from the table's start to where anything is known.

    Raises LedgerCorrupt, StoreFailure, SampleUnreadable.
    """
    line = line_of(ledger.entries())
    trained = trained_by(line)
    since = since or origin(samples)
    until = until or _natural_end(samples, trained, root, now)
    found = list_partitions(samples, since, until, root, now, holes_of(line))
    return [_merged(each, trained.get(each.start)) for each in found]


def _natural_end(samples: Samples, trained: Mapping[datetime, TrainedBy], root: Path, now: datetime) -> datetime:
    """Behind the last partition that is there or trained; of a table with an end, up to it as far as time has come."""
    last = open_inventory(samples, root, now).last()
    ends = [origin(samples), max((each.end for each in trained.values()), default=origin(samples))]
    if last is not None:
        ends.append(end_of(samples, last))
    end = limit(samples)
    if end is not None:
        ends.append(min(end, now))
    return max(ends)


def _merged(found: InventoryLine, trained: TrainedBy | None) -> PartitionLine:
    line = PartitionLine(**msgspec.structs.asdict(found))
    if trained is None:
        return line
    reason = "" if found.state == Readiness.READY else f"now {found.state.replace('_', ' ')}"
    return msgspec.structs.replace(line, state=TRAINED, reason=reason, checkpoint=trained.number)


def ranges(lines: Iterable[PartitionLine]) -> list[PartitionRange]:
    """Neighbours of one state and reason as one range."""
    found: list[PartitionRange] = []
    for line in lines:
        last = found[-1] if found else None
        if last is not None and (last.state, last.reason, last.end) == (line.state, line.reason, line.start):
            found[-1] = PartitionRange(
                last.start, line.end, last.state, last.reason, last.partitions + 1, last.bytes + line.bytes
            )
        else:
            found.append(PartitionRange(line.start, line.end, line.state, line.reason, 1, line.bytes))
    return found


def inspect(samples: Samples, ledger: Ledger, start: datetime, root: Path, now: datetime) -> PartitionReport:
    """Readiness, checks and content of one partition, and which checkpoint was trained on it.

    Raises LedgerCorrupt, StoreFailure; what is wrong with the partition is in the report.
    """
    state = ledger.state()
    follows = state.head is not None and state.watermark is not None and start >= state.watermark
    report = _inspect(samples, start, root, now, state.head.split.columns if follows and state.head else ())
    trained = trained_by(line_of(ledger.entries())).get(start)
    changed = trained is not None and report.fingerprint not in (None, trained.fingerprint)
    ok = report.state == Readiness.READY and not report.problems
    return msgspec.structs.replace(report, ok=ok, trained_by=trained, republished=changed)


def _inspect(samples: Samples, start: datetime, root: Path, now: datetime, columns: Columns) -> PartitionReport:
    inventory = open_inventory(samples, root, now)
    end = end_of(samples, start)
    try:
        state = inventory.state(start)
        if state.presence is not Readiness.READY:
            return PartitionReport(
                start=start,
                end=end,
                state=state.presence.value,
                reason=state.reason,
                bytes=sum(file.size_bytes for file in state.files),
            )
        problems: Sequence[str] = ()
        try:
            content = inventory.content(start)
            inventory.unified(columns).add(start)
        except SampleCheckFailed as error:
            problems = error.problems
            unchecked = open_inventory(msgspec.structs.replace(samples, checks=None), root, now)
            unchecked.state(start)
            content = unchecked.content(start)
    except SampleUnreadable as error:
        return PartitionReport(start=start, end=end, state="unreadable", reason=str(error), problems=[str(error)])
    return PartitionReport(
        start=start,
        end=end,
        state=state.presence.value,
        problems=list(problems),
        files=list(content.files),
        rows=content.rows,
        bytes=content.bytes,
        fingerprint=content.fingerprint,
    )


def partition_at(samples: Samples, text: str) -> datetime:
    """The start of the partition that a person names. Raises InputError when none starts then."""
    try:
        moment = parse_moment(text)
    except ValueError as error:
        raise InputError(f"partition: {error}") from None
    end = limit(samples)
    if moment < origin(samples) or (end is not None and moment >= end):
        upto = f" and end at {label(end)}" if end is not None else ""
        raise InputError(f"there is no partition {label(moment)}: they start at {label(origin(samples))}{upto}")
    if at_or_after(samples, moment) != moment:
        inside = containing(samples, moment)
        assert inside is not None
        raise InputError(
            f"no partition starts at {label(moment)}, it is inside of {label(inside)}: "
            f"they are {length_label(samples)} long from {label(origin(samples))}"
        )
    return moment


# -- what the line of a chain was trained on -----------------------------------------------------------------------

#: a checkpoint of the line, or a change of its grid
OnLine = Checkpoint | Regrid


def line_of(entries: Iterable[LedgerEntry]) -> list[OnLine]:
    """The checkpoints from the root to the head, those without files any more included, and the changes of the grid
    between them."""
    line: list[OnLine] = []
    for entry in entries:
        match entry:
            case Checkpoint() | Regrid():
                line.append(entry)
            case Rewind(to_checkpoint_id=target):
                while line and not (isinstance(line[-1], Checkpoint) and line[-1].id == target):
                    line.pop()
    return line


def trained_by(line: Iterable[OnLine]) -> dict[datetime, TrainedBy]:
    """Start of a partition (UTC) → the checkpoint that was trained on it."""
    return {each.start: each for entry in line if isinstance(entry, Checkpoint) for each in trained_in(entry)}


def holes_of(line: Iterable[OnLine]) -> list[Hole]:
    """What the line stepped over and has not trained since."""
    line = list(line)
    trained = [stretch for entry in line if isinstance(entry, HoleFilled) for stretch in trained_stretches(entry.split)]
    return [
        Hole(ensure_utc(start), ensure_utc(end), hole.reason)
        for entry in line
        if not isinstance(entry, HoleFilled)
        for hole in (entry.holes if isinstance(entry, Regrid) else entry.split.holes)
        for start, end in without((hole.start, hole.end), trained)
    ]
