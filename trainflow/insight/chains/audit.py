"""Audit a chain against its samples as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trainflow.checkpoints.audit.audit import AuditReport, audit
from trainflow.checkpoints.audit.raw_ledger import RawPiece
from trainflow.checkpoints.audit.timeline import Interval, uncovered
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Adoption
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.import_external import problems
from trainflow.checkpoints.ledger_changes.prune import chains_of
from trainflow.checkpoints.upkeep.changed_samples import comparable
from trainflow.errors import CheckpointError, InputError, SampleError
from trainflow.humanize import agreeing, counted
from trainflow.samples.partitions import label
from trainflow.samples.spec import Samples
from trainflow.samples.splits.late_partitions import arrived
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.inventory import Inventory, open_inventory
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain


class ChainAudit(NamedTuple):
    """What was found in one chain."""

    chain: ChainKey
    report: AuditReport

    @property
    def document(self) -> dict[str, Any]:
        """The audit as programs read it: `gaps`, `duplicates` and `holes` are numbers, lists beside them say where."""
        found = msgspec.to_builtins(self.report)
        for name in ("gap", "duplicate", "hole"):
            found[f"{name}_list"] = found[f"{name}s"]
            found[f"{name}s"] = len(found[f"{name}s"])
        return {**self.chain.names, **found}


class PipelineAudit(NamedTuple):
    """Audit of all chains of a pipeline that were asked for."""

    pipeline: str
    chains: list[ChainAudit]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong in any of them."""
        return all(each.report.ok for each in self.chains)

    @property
    def document(self) -> dict[str, Any]:
        """The whole as programs read it."""
        return {"pipeline": self.pipeline, "ok": self.ok, "chains": [each.document for each in self.chains]}


def audit_pipeline(
    file: OpenedPipeline,
    stage: str | None,
    branch: str | None,
    now: datetime,
    *,
    every: bool = False,
    verify_files: bool = True,
    look_at_samples: bool = True,
) -> PipelineAudit:
    """Audit the chains that are meant; `every`: also stages and branches that only the store knows. Raises InputError,
    StoreFailure."""
    found = []
    for chain, ledger in _ledgers(file.chosen(stage, branch), every=every):
        report = audit_chain(
            ledger,
            chain.samples if ledger.chain == chain.key else None,
            chain.root,
            now,
            verify_files=verify_files,
            look_at_samples=look_at_samples,
            foreign_options=chain.adopt.storage_options if chain.adopt else None,
        )
        found.append(ChainAudit(ledger.chain, report))
    names = {each.chain.pipeline for each in found}
    name = names.pop() if len(names) == 1 else file.name
    return PipelineAudit(name, found)


def _ledgers(chains: list[PipelineChain], *, every: bool) -> list[tuple[PipelineChain, Ledger]]:
    """Each chain once, however many DAGs of the file train it."""
    found: dict[tuple[str, str], tuple[PipelineChain, Ledger]] = {}
    for chain in chains:
        ledger = chain.ledger()
        found.setdefault((ledger.store.url, str(ledger.chain)), (chain, ledger))
    if every:
        for chain, ledger in list(found.values()):
            for key in chains_of(ledger.store, ledger.chain.pipeline):
                found.setdefault((ledger.store.url, str(key)), (chain, chain.ledger(key)))
    return list(found.values())


def audit_chain(
    ledger: Ledger,
    samples: Samples | None,
    root: Path,
    now: datetime,
    *,
    verify_files: bool,
    look_at_samples: bool,
    foreign_options: Mapping[str, Any] | None = None,
) -> AuditReport:
    """The report, with a notice where samples could not be looked at. `foreign_options`: for the folder that the chain
    adopted. Raises StoreFailure."""
    report = _with_samples(ledger, samples if look_at_samples else None, samples, root, now, verify_files=verify_files)
    return _with_adopted(report, ledger, root, foreign_options or {}) if verify_files else report


def _with_samples(
    ledger: Ledger, compared: Samples | None, samples: Samples | None, root: Path, now: datetime, *, verify_files: bool
) -> AuditReport:
    if compared is None:
        return audit(ledger, samples, verify_files=verify_files)
    present = CurrentSamples(open_inventory(comparable(compared), root, now))
    report = audit(ledger, samples, fingerprints_now=present.fingerprints, verify_files=verify_files)
    there = present.arrived([left for hole in report.holes for left in uncovered(hole, report.left_out)])
    return msgspec.structs.replace(report, arrived=there, notices=[*report.notices, *present.notices(there)])


def _with_adopted(report: AuditReport, ledger: Ledger, root: Path, options: Mapping[str, Any]) -> AuditReport:
    """Verify the folder that the chain began with. It is needed as long as nothing was trained on from it; after that
    only a rewind to the very beginning would miss it."""
    try:
        start = ledger.state().start
        found = problems(start, dict(options), root) if isinstance(start, Adoption) else []
    except (SampleError, InputError, CheckpointError) as error:
        return msgspec.structs.replace(report, notices=[*report.notices, f"what was adopted was not verified: {error}"])
    if found == []:
        return report
    assert isinstance(start, Adoption)
    if found is None:
        found = [f"the folder {start.uri}, which the chain adopted, has gone"]
    if report.head_id is not None:
        return msgspec.structs.replace(report, notices=[*report.notices, *found])
    return msgspec.structs.replace(report, problems=[*report.problems, *found], artifacts_ok=False, ok=False)


@dataclass
class CurrentSamples:
    """The partitions of a table as they are now."""

    inventory: Inventory
    gone: set[datetime] = field(default_factory=set)
    unreadable: dict[datetime, str] = field(default_factory=dict)

    def fingerprints(self, trained: Sequence[RawPiece]) -> list[str | None]:
        """See `trainflow.checkpoints.audit.audit.FingerprintsNow`. Never raises: an audit is about the ledger."""
        with suppress(SampleError, InputError):
            # many listings at a time; should one of them fail, each is asked for by itself
            self.inventory.states([each.start for each in trained])
        return [self._fingerprint(each) for each in trained]

    def _fingerprint(self, trained: RawPiece) -> str | None:
        try:
            found = self.inventory.fingerprint(trained.start, trained)
        except (SampleError, InputError) as error:
            self.unreadable[trained.start] = str(error)
            return None
        if found is None:
            self.gone.add(trained.start)
        return found

    def arrived(self, holes: list[Interval]) -> list[datetime]:
        """The partitions of these holes that are there now. Never raises."""
        stretches = [Hole(hole.start, hole.end, hole.reason) for hole in holes]
        try:
            return list(arrived(self.inventory.samples, stretches, self.inventory))
        except (SampleError, InputError) as error:
            self.unreadable[holes[0].start] = str(error)
            return []

    def notices(self, arrived: list[datetime]) -> list[str]:
        """What arrived in holes, and what could not be compared."""
        found = []
        if arrived:
            found.append(
                f"{counted(len(arrived), 'partition')} of the holes {agreeing(len(arrived), 'has', 'have')} "
                f"arrived, the first is {label(arrived[0])}: "
                "'trainflow repair PIPELINE' trains them on top of the head"
            )
        if self.gone:
            found.append(
                f"{counted(len(self.gone), 'partition')} of the chain "
                f"{agreeing(len(self.gone), 'is', 'are')} not there (any more), the first is "
                f"{label(min(self.gone))}: what was trained on them cannot be compared"
            )
        if self.unreadable:
            first = min(self.unreadable)
            found.append(
                f"{counted(len(self.unreadable), 'partition')} of the chain cannot be read, the first is "
                f"{label(first)}: "
                f"{self.unreadable[first]}"
            )
        return found
