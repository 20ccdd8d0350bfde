"""Audit: prove what a chain was trained on, from the raw entries alone.

Takes none of the fold's shortcuts: every entry is read as plain JSON, the digest chain is computed again, the line is
found by walking from the head back through the parents, and its partitions are laid out in time. What is wrong is
reported, not raised.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from trainflow.checkpoints.artifacts import verify
from trainflow.checkpoints.entries import Artifacts
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.timeline import Interval, by_time, gaps_between, interval_of, overlapping, time_of
from trainflow.errors import StoreFailure
from trainflow.identifiers import digest
from trainflow.samples.spec import Samples

#: the fingerprint a partition has now, by its start; None: it is not there (or not ready)
FingerprintNow = Callable[[datetime], str | None]


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `ok`: no problem at all; notices do not count."""

    chain: str
    store: str
    at: datetime
    #: partitions trained on the line from the root to the head
    partitions: int
    #: time on the line that was neither trained nor recorded as a hole
    gaps: list[Interval]
    #: partitions trained more than once, in part or whole
    duplicates: list[Interval]
    holes: list[Interval]
    entries: int
    checkpoints: int
    head_id: str | None
    #: 0: no head
    head_sequence: int
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
    entries: list[dict[str, Any]] = field(default_factory=list)
    ledger_problems: list[str] = field(default_factory=list)
    artifact_problems: list[str] = field(default_factory=list)
    time_problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def audit(
    ledger: Ledger,
    samples: Samples | None,
    root: Path | None,
    now: datetime,
    *,
    fingerprint_now: FingerprintNow | None = None,
    verify_files: bool = True,
) -> AuditReport:
    """Audit a chain. `samples` adds the table's own start and partition length, `fingerprint_now` finds partitions that
    were published again and holes that have been filled since (`root` is for the caller that builds it).

    `verify_files` reads every file of every kept checkpoint. Raises StoreFailure when the store cannot be read at all.
    """
    work = _Audit(ledger)
    _read_entries(work)
    head, kept = _replay(work)
    line = _line(work, head)
    partitions = sorted((interval_of(each) for entry in line for each in entry["split"]["partitions"]), key=by_time)
    holes = sorted((interval_of(each) for entry in line for each in entry["split"].get("holes", [])), key=by_time)
    gaps = gaps_between([*partitions, *holes], samples.start if samples and not _has_origin(line) else None)
    duplicates = overlapping(partitions)
    _describe(work, gaps, duplicates)
    if head and partitions and partitions[-1].end != time_of(head["watermark"]):
        work.ledger_problems.append(f"the head's watermark {head['watermark']} is not the end of its last partition")
    if samples:
        _check_alignment(work, partitions, samples)
    if verify_files:
        _verify_files(work, kept)
    republished = _compare(work, line, holes, fingerprint_now) if fingerprint_now else []
    problems = work.ledger_problems + work.artifact_problems + work.time_problems
    return AuditReport(
        chain=str(ledger.chain),
        store=ledger.store.url,
        at=now,
        partitions=len(partitions),
        gaps=gaps,
        duplicates=duplicates,
        holes=holes,
        entries=len(work.entries),
        checkpoints=sum(entry["kind"] == "checkpoint" for entry in work.entries),
        head_id=head["id"] if head else None,
        head_sequence=head["sequence"] if head else 0,
        watermark=time_of(head["watermark"]) if head else None,
        ledger_ok=not work.ledger_problems,
        artifacts_ok=not work.artifact_problems,
        republished=republished,
        problems=problems,
        notices=work.notices,
        ok=not problems,
    )


def _read_entries(work: _Audit) -> None:
    """Every entry there is, the digest chain computed again. A bad one is reported and the next is looked at."""
    store, previous, last = work.ledger.store, "", 0
    for number, path in _entry_paths(work):
        if number != last + 1:
            missing = f"{last + 1}" if number == last + 2 else f"{last + 1} to {number - 1}"
            work.ledger_problems.append(f"entry {missing} is missing, entry {number} is there ({store.uri(path)})")
        data = store.read(path)
        entry = _parse(data)
        if entry is None:
            work.ledger_problems.append(f"{store.uri(path)} is torn, edited or written by a newer trainflow")
        else:
            if entry.get("previous") != previous or entry.get("sequence") != number:
                work.ledger_problems.append(f"{store.uri(path)} does not follow the bytes of the entry before it")
            work.entries.append(entry)
        previous, last = digest(data), number


def _entry_paths(work: _Audit) -> list[tuple[int, str]]:
    ledger, paths = work.ledger, []
    for file in ledger.store.files(ledger.chain.ledger):
        name = file.path.rsplit("/", 1)[-1].removesuffix(".json")
        if name.isdecimal() and file.path == ledger.chain.entry(int(name)):
            paths.append((int(name), file.path))
        else:
            work.notices.append(f"{ledger.store.uri(file.path)} is no ledger entry")
    return sorted(paths)


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(data)
        if entry["kind"] == "checkpoint":
            split = entry["split"]
            for each in [*split["partitions"], *split.get("holes", [])]:
                interval_of(each)
            time_of(entry["watermark"])
            msgspec.convert(entry["artifacts"], Artifacts)
        known = entry["kind"] in ("checkpoint", "prune", "rewind")
    except (ValueError, KeyError, TypeError, msgspec.ValidationError):
        return None
    return entry if known else None


def _replay(work: _Audit) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The head and the checkpoints whose files must be there."""
    head: str | None = None
    seen: dict[str, dict[str, Any]] = {}
    kept: dict[str, dict[str, Any]] = {}
    for entry in work.entries:
        match entry["kind"]:
            case "checkpoint":
                if entry["parent_id"] != head:
                    work.ledger_problems.append(
                        f"checkpoint {entry['id']} (entry {entry['sequence']}) is a child of {entry['parent_id']}, "
                        f"the head was {head}"
                    )
                if entry["id"] in seen:
                    work.ledger_problems.append(f"checkpoint {entry['id']} was committed twice")
                head = entry["id"]
                seen[head] = kept[head] = entry
            case "rewind":
                head = entry["to_checkpoint_id"]
                if head is not None and head not in seen:
                    work.ledger_problems.append(
                        f"entry {entry['sequence']} rewinds to {head}, which was never committed"
                    )
            case "prune":
                for name in entry["checkpoint_ids"]:
                    if kept.pop(name, None) is None or name == head:
                        work.ledger_problems.append(f"entry {entry['sequence']} prunes {name}, which it must not")
    return (seen.get(head) if head else None), kept


def _line(work: _Audit, head: dict[str, Any] | None) -> list[dict[str, Any]]:
    """From the head back to the root."""
    by_id = {entry["id"]: entry for entry in work.entries if entry["kind"] == "checkpoint"}
    line: list[dict[str, Any]] = []
    # a corrupt ledger could lead in a circle
    while head is not None and len(line) < len(work.entries):
        line.append(head)
        parent = head["parent_id"]
        head = by_id.get(parent) if parent else None
        if parent and head is None:
            work.ledger_problems.append(f"checkpoint {parent}, a parent on the line, is not in the ledger")
    return line


def _has_origin(line: list[dict[str, Any]]) -> bool:
    return bool(line and line[-1].get("origin"))


def _describe(work: _Audit, gaps: list[Interval], duplicates: list[Interval]) -> None:
    work.time_problems += [f"nothing was trained on {gap} and no hole records why" for gap in gaps]
    work.time_problems += [f"{each} was trained more than once" for each in duplicates]


def _check_alignment(work: _Audit, partitions: list[Interval], samples: Samples) -> None:
    length = timedelta(seconds=samples.length_seconds)
    odd = [each for each in partitions if each.end - each.start != length or (each.start - samples.start) % length]
    if odd:
        work.time_problems.append(
            f"{len(odd)} trained partitions are no partitions of these samples (length {length}, from "
            f"{samples.start.isoformat()}), the first is {odd[0]}: were the samples' start or length changed?"
        )


def _verify_files(work: _Audit, kept: dict[str, dict[str, Any]]) -> None:
    for name, entry in kept.items():
        try:
            problems = verify(work.ledger.store, msgspec.convert(entry["artifacts"], Artifacts))
        except StoreFailure as error:
            problems = [str(error)]
        work.artifact_problems += [f"checkpoint {name} (sequence {entry['sequence']}): {each}" for each in problems]


def _compare(
    work: _Audit, line: list[dict[str, Any]], holes: list[Interval], fingerprint_now: FingerprintNow
) -> list[datetime]:
    republished = []
    for entry in reversed(line):
        for each in entry["split"]["partitions"]:
            start = time_of(each["start"])
            found = fingerprint_now(start)
            if found is not None and found != each["fingerprint"]:
                republished.append(start)
                work.notices.append(
                    f"partition {start.isoformat()} was published again after checkpoint {entry['id']} (sequence "
                    f"{entry['sequence']}) trained on it"
                )
    for hole in holes:
        if fingerprint_now(hole.start) is not None:
            work.notices.append(f"the hole {hole} has samples now: rewind to before it to train on them")
    return republished
