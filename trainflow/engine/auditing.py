"""Audit a chain against its samples as they are now."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from trainflow.checkpoints.audit import AuditReport, audit
from trainflow.checkpoints.ledger import Ledger
from trainflow.errors import InputError, SampleError
from trainflow.samples.inventory import Inventory, open_inventory
from trainflow.samples.partitions import label
from trainflow.samples.readiness import Presence
from trainflow.samples.spec import Samples


def audit_chain(
    ledger: Ledger, samples: Samples | None, root: Path, now: datetime, *, verify_files: bool, look_at_samples: bool
) -> AuditReport:
    """The report, with a notice where samples could not be looked at. Raises StoreFailure."""
    if samples is None or not look_at_samples:
        return audit(ledger, samples, root, now, verify_files=verify_files)
    present = Present(open_inventory(msgspec.structs.replace(samples, checks=None), root, now))
    report = audit(ledger, samples, root, now, fingerprint_now=present.fingerprint, verify_files=verify_files)
    return msgspec.structs.replace(report, notices=[*report.notices, *present.notices()])


@dataclass
class Present:
    """The partitions of a table as they are now."""

    inventory: Inventory
    gone: set[datetime] = field(default_factory=set)
    unreadable: dict[datetime, str] = field(default_factory=dict)

    def fingerprint(self, start: datetime) -> str | None:
        """See `trainflow.checkpoints.audit.FingerprintNow`. Never raises: an audit is about the ledger."""
        try:
            state = self.inventory.state(start)
            if state.presence is Presence.READY:
                return self.inventory.content(start).fingerprint
        except (SampleError, InputError) as error:
            self.unreadable[start] = str(error)
            return None
        self.gone.add(start)
        return None

    def notices(self) -> list[str]:
        """What could not be compared."""
        found = []
        if self.gone:
            found.append(
                f"{len(self.gone)} partitions of the chain are not there (any more), the first is "
                f"{label(min(self.gone))}: what was trained on them cannot be compared"
            )
        if self.unreadable:
            first = min(self.unreadable)
            found.append(
                f"{len(self.unreadable)} partitions of the chain cannot be read, the first is {label(first)}: "
                f"{self.unreadable[first]}"
            )
        return found
