"""Audit: prove what a chain was trained on, from the raw entries alone.

Takes none of the fold's shortcuts: every entry is read as plain JSON, the digest chain is computed again, the line is
found by walking from the head back through the parents, and its partitions are laid out in time. Entries and
checkpoints that something else knows of are missed. What is wrong is reported, not raised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from trainflow.checkpoints.audit.raw_chain import RawChain, replay
from trainflow.checkpoints.audit.raw_ledger import RawCheckpoint, RawEntry, RawGrid, RawLedger, RawPiece, read_raw
from trainflow.checkpoints.audit.timeline import Interval, by_time, gaps_between, overlapping, uncovered
from trainflow.checkpoints.ledger import missing_entries, snapshots
from trainflow.checkpoints.ledger.entries import Artifacts, Prune
from trainflow.checkpoints.ledger.entry_files import batches
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import sentence, traces, unrecorded
from trainflow.checkpoints.ledger.missing_entries import EntryEvidence, NewestEntry
from trainflow.checkpoints.verified_artifacts import verify_many
from trainflow.errors import CheckpointError, LedgerCorrupt
from trainflow.humanize import agreeing, counted
from trainflow.samples.grid import Grid, grid_of
from trainflow.samples.grid_change import grid_change, what_changed
from trainflow.samples.partitions import Partitioning, end_of, is_boundary, label, length_label
from trainflow.samples.spec import Samples

#: the fingerprints that partitions which were trained on have now; None: it is not there (or not ready)
FingerprintsNow = Callable[[Sequence[RawPiece]], Sequence[str | None]]


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `ok`: no problem at all; notices do not count."""

    store: str
    #: the chain it was forked from or the folder it was adopted from; empty when it began with nothing
    start: str
    #: partitions trained on the line from the root to the head
    partitions: int
    #: time on the line that was neither trained nor recorded as a hole
    gaps: list[Interval]
    #: partitions trained more than once, in part or whole
    duplicates: list[Interval]
    #: stepped over and not trained since
    holes: list[Interval]
    #: what of the holes a gate or a person left out on purpose
    left_out: list[Interval] = []
    #: partitions of the other holes, which were missing, that are there now; where it was looked
    arrived: list[datetime] = []
    #: partitions that were holes once
    filled: int
    #: after the head: the next checkpoint records them as holes
    skips: list[Interval]
    #: alias → checkpoint
    promoted: dict[str, str]
    rewinds: int
    entries: int
    checkpoints: int
    head_id: str | None
    #: 0: no head
    head_number: int
    watermark: datetime | None
    ledger_ok: bool
    artifacts_ok: bool
    #: trained partitions that have another fingerprint now
    republished: list[datetime]
    problems: list[str]
    notices: list[str]
    ok: bool


@dataclass
class _Audit:
    ledger: Ledger
    entries: int
    last_sequence: int
    chain: RawChain
    #: from the root to the head
    line: list[RawCheckpoint]
    ledger_problems: list[str]
    notices: list[str]
    artifact_problems: list[str] = field(default_factory=list)
    time_problems: list[str] = field(default_factory=list)


def audit(
    ledger: Ledger,
    samples: Samples | None,
    *,
    fingerprints_now: FingerprintsNow | None = None,
    verify_files: bool = True,
) -> AuditReport:
    """Audit a chain. `samples` adds the table's own start and partition length, `fingerprints_now` finds partitions
    that were published again.

    `verify_files` reads every file of every kept checkpoint. Raises StoreFailure when the store cannot be read at all.
    """
    work = _replayed(ledger)
    partitions = sorted((each for entry in work.line for each in entry.split.partitions), key=by_time)
    recorded = [each for entry in work.line if not entry.fills for each in entry.split.holes]
    recorded += [each for entry in work.chain.regrids for each in entry.holes]
    filled = [each for entry in work.line if entry.fills for each in entry.split.partitions]
    holes = sorted((left for hole in recorded for left in uncovered(hole, filled)), key=by_time)
    gaps = gaps_between([*partitions, *holes], _begin(work, samples))
    duplicates = overlapping(partitions)
    _describe(work, gaps, duplicates)
    _check_joints(work)
    _check_fills(work)
    work.time_problems += alignment_problems(work.line, samples)
    work.ledger_problems += regrid_problems(work.line, work.chain.regrids)
    if samples:
        work.time_problems += change_problems(work.line, work.chain, samples, ledger.chain.arguments)
    if verify_files:
        _verify_files(work)
    republished = _compare(work, fingerprints_now) if fingerprints_now else []
    problems = work.ledger_problems + work.artifact_problems + work.time_problems
    head = work.line[-1] if work.line else None
    return AuditReport(
        store=ledger.store.url,
        start=_start_of(work.chain.start),
        partitions=len(partitions),
        gaps=gaps,
        duplicates=duplicates,
        holes=holes,
        left_out=_left_out(holes, [each for _, each in work.chain.left_out]),
        filled=len(filled),
        skips=work.chain.skips,
        promoted=work.chain.promoted,
        rewinds=work.chain.rewinds,
        entries=work.entries,
        checkpoints=len(work.chain.committed),
        head_id=head.id if head else None,
        head_number=head.number if head else 0,
        watermark=head.watermark if head else None,
        ledger_ok=not work.ledger_problems,
        artifacts_ok=not work.artifact_problems,
        republished=republished,
        problems=problems,
        notices=work.notices,
        ok=not problems,
    )


def _left_out(holes: list[Interval], on_purpose: list[Interval]) -> list[Interval]:
    """What of the holes lies in the stretches that were left out on purpose."""
    missing = [left for hole in holes for left in uncovered(hole, on_purpose)]
    return [left for hole in holes for left in uncovered(hole, missing)]


def _replayed(ledger: Ledger) -> _Audit:
    # before the entries: what knows of one was written after it, and the chain may go on meanwhile
    known = read_loss_evidence(ledger)
    raw = read_raw(ledger)
    chain = replay(raw.entries)
    line = chain.line()
    raw.problems += missing(known, raw, {*chain.committed, *chain.lost})
    raw.notices += chain.notices
    if chain.stopped:
        reasons = "; ".join(chain.stopped.reasons)
        raw.notices.append(f"the chain is stopped: gates refused {chain.stopped.id}: {reasons}")
    last = raw.entries[-1].sequence if raw.entries else 0
    return _Audit(ledger, len(raw.entries), last, chain, line, raw.problems + chain.problems, raw.notices)


def _begin(work: _Audit, samples: Samples | None) -> datetime | None:
    """Where the line has to begin; None when nothing says so."""
    if work.chain.start:
        return work.chain.start.watermark
    return samples.start if samples and not (work.line and work.line[0].origin) else None


def _start_of(start: RawEntry | None) -> str:
    if start is None:
        return ""
    if start.origin is None:
        return f"adopted from {start.uri}"
    return f"forked from {'/'.join(start.origin.chain.values())}@{start.origin.checkpoint_id}"


def _describe(work: _Audit, gaps: list[Interval], duplicates: list[Interval]) -> None:
    work.time_problems += [f"nothing was trained on {gap} and no hole records why" for gap in gaps]
    work.time_problems += [f"{each} was trained more than once" for each in duplicates]


def _check_joints(work: _Audit) -> None:
    """Each checkpoint begins where its parent ended, and says truly where it ends itself."""
    edge = _begin(work, None)
    for entry in work.line:
        name = f"checkpoint {entry.number} ({entry.id})"
        if entry.fills:
            if entry.watermark != edge:
                work.ledger_problems.append(f"{name} fills a hole and moves the watermark")
            continue
        if max((each.end for each in entry.split.partitions), default=None) != entry.watermark:
            work.ledger_problems.append(
                f"{name}: its watermark {label(entry.watermark)} is not the end of its last partition"
            )
        if edge is not None and entry.split.start != edge:
            work.ledger_problems.append(
                f"{name} begins at {label(entry.split.start)}, before it the chain had trained up to {label(edge)}"
            )
        edge = entry.watermark


def _check_fills(work: _Audit) -> None:
    """What is called a filled hole was one, at that time."""
    holes: list[Interval] = []
    regrids = list(work.chain.regrids)
    for entry in work.line:
        while regrids and regrids[0].sequence < entry.sequence:
            holes += regrids.pop(0).holes
        if not entry.fills:
            holes += entry.split.holes
            continue
        for each in entry.split.partitions:
            if uncovered(each, holes):
                work.time_problems.append(f"checkpoint {entry.number} ({entry.id}) fills {each}, which was no hole")
        holes = [left for hole in holes for left in uncovered(hole, entry.split.partitions)]


def _verify_files(work: _Audit) -> None:
    kept = list(work.chain.kept.items())
    many = [msgspec.convert(entry.artifacts, Artifacts, from_attributes=True) for _, entry in kept]
    for (name, entry), problems in zip(kept, verify_many(work.ledger.store, many), strict=True):
        if problems and not _was_pruned_meanwhile(work, name):
            work.artifact_problems += [f"checkpoint {entry.number} ({name}): {each}" for each in problems]


def _was_pruned_meanwhile(work: _Audit, name: str) -> bool:
    """An audit takes its time, and the chain goes on."""
    store, chain = work.ledger.store, work.ledger.chain
    try:
        return any(
            isinstance(each.entry, Prune) and name in each.entry.checkpoint_ids
            for batch in batches(store, chain, work.last_sequence + 1)
            for each in batch
        )
    except CheckpointError:
        return False


def _compare(work: _Audit, fingerprints_now: FingerprintsNow) -> list[datetime]:
    trained = [(entry, each) for entry in work.line for each in entry.split.partitions]
    republished = []
    for (entry, each), found in zip(trained, fingerprints_now([each for _, each in trained]), strict=True):
        if found is not None and found != each.fingerprint:
            republished.append(each.start)
            work.notices.append(
                f"partition {label(each.start)} was published again after checkpoint "
                f"{entry.number} ({entry.id}) trained on it"
            )
    return republished


def alignment_problems(line: Sequence[RawCheckpoint], samples: Samples | None) -> list[str]:
    """Partitions that are none of the grid that was recorded with them, or, where nothing was, of the table's."""
    odd = [(each, cut) for entry in line for each, cut in _cut(entry, samples) if not _is_one(each, cut)]
    if not odd:
        return []
    first, cut = odd[0]
    return [
        f"{counted(len(odd), 'trained partition')} {agreeing(len(odd), 'is none', 'are none')} of these samples "
        f"(length {length_label(cut)}, from {label(cut.start)}), the first is {first}: were the samples' start or "
        "length changed?"
    ]


def regrid_problems(line: Sequence[RawCheckpoint], regrids: Sequence[RawEntry]) -> list[str]:
    """Checkpoints that were trained on another grid than the one before, although no entry says so."""
    return list(_unsaid(line, list(regrids)))


def change_problems(line: Sequence[RawCheckpoint], chain: RawChain, samples: Samples, name: str) -> list[str]:
    """What the table has become, where the chain cannot simply go on with that."""
    grid, edge = _last_grid(line, chain), line[-1].watermark if line else None
    if grid is None or edge is None:
        return []
    if chain.skips:
        edge = chain.skips[-1].end
    change = grid_change(grid, grid_of(samples), edge)
    return [f"{what_changed(change)}: 'trainflow plan {name}' names the ways out"] if change.refused else []


def _cut(entry: RawCheckpoint, samples: Samples | None) -> Iterator[tuple[RawPiece, Partitioning]]:
    cut: Partitioning | None = entry.grid or samples
    return iter(()) if cut is None else ((each, cut) for each in entry.split.partitions)


def _is_one(piece: RawPiece, cut: Partitioning) -> bool:
    return is_boundary(cut, piece.start) and end_of(cut, piece.start) == piece.end


def _unsaid(line: Sequence[RawCheckpoint], regrids: list[RawEntry]) -> Iterator[str]:
    known: Grid | None = None
    edge = None
    for entry in line:
        while regrids and regrids[0].sequence < entry.sequence:
            known = _grid(regrids.pop(0).grid)
        found = _grid(entry.grid)
        if known is not None and found is not None and edge is not None and found != known:
            change = grid_change(known, found, edge)
            if change.elsewhere or change.recut:
                yield f"checkpoint {entry.number} ({entry.id}): {what_changed(change)}, and no entry says so"
        known, edge = found or known, entry.watermark


def _last_grid(line: Sequence[RawCheckpoint], chain: RawChain) -> Grid | None:
    newest = line[-1] if line else None
    if chain.regrids and (newest is None or chain.regrids[-1].sequence > newest.sequence):
        return _grid(chain.regrids[-1].grid)
    return _grid(newest.grid) if newest else None


def _grid(raw: RawGrid | None) -> Grid | None:
    return None if raw is None else Grid(raw.path, raw.start, raw.length_seconds, raw.length_months, raw.zone)


@dataclass
class LossEvidence:
    """Taken before the entries are read."""

    mark: NewestEntry
    beside: list[EntryEvidence]
    #: number and digest of the entry that a snapshot ends with, by its path
    snapshots: Mapping[str, tuple[int, str]]
    #: of checkpoints, by id
    traces: Mapping[str, str]
    problems: list[str]


def read_loss_evidence(ledger: Ledger) -> LossEvidence:
    """What lies beside the ledger. Raises StoreFailure."""
    store, chain = ledger.store, ledger.chain
    found, problems = {}, []
    try:
        found = traces(ledger)
    except LedgerCorrupt as error:
        problems.append(f"a chain that goes on from this one cannot be read: {error}")
    mark = missing_entries.read_newest_entry(store, chain)
    return LossEvidence(
        mark, missing_entries.entry_evidence(store, chain), snapshots.snapshot_digests(store, chain), found, problems
    )


def missing(known: LossEvidence, raw: RawLedger, committed: Collection[str]) -> list[str]:
    """A sentence about each. `committed` are the checkpoints of the entries that are there."""
    problems = list(known.problems)
    newest = max(known.beside, key=lambda each: each.sequence)
    last = max(raw.digests, default=0)
    if newest.sequence > last:
        lost = range(last + 1, newest.sequence + 1)
        are = agreeing(len(lost), "is", "are")
        problems.append(
            f"{missing_entries.entries_named(lost)} {are} missing: {newest.what} knows of entry {newest.sequence}"
        )
    problems += _others(known, raw)
    gone = unrecorded(known.traces, committed)
    return [*problems, f"{sentence(gone)}: its entries are missing"] if gone else problems


def _others(known: LossEvidence, raw: RawLedger) -> Iterator[str]:
    """Entries that are not what was remembered of them, and that nothing else is said about."""
    store, chain = raw.ledger.store, raw.ledger.chain
    said = {**known.snapshots, chain.mark: (known.mark.sequence, known.mark.digest)}
    for path, (number, digest) in said.items():
        place, found = store.uri(chain.entry(number)), raw.digests.get(number, digest)
        if found != digest and not any(place in problem for problem in raw.problems):
            yield f"{place} is not the entry that was written: {store.uri(path)} says {digest}, found {found}"
