"""Begin a chain with a checkpoint that trainflow did not write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trainflow.errors import CheckpointError
from trainflow.observability.redaction import redact_text
from trainflow.operators.ledger_author import author_of
from trainflow.operators.storage_options import foreign_options
from trainflow.pluralize import counted
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.actions.import_spec import Adopt
    from trainflow.checkpoints.ledger.ledger import Ledger

#: so many names are told
_SHOWN = 10


def adopt_checkpoint(ledger: Ledger, spec: Adopt, ti: TaskInstance) -> None:
    """Write the first entry. Of two engines that do so at once one wins, and both go on from what it adopted.

    Raises CheckpointNotFound when there is nothing to adopt (yet), SampleUnreadable, StoreFailure.
    """
    from trainflow.checkpoints.actions.fork import adopt
    from trainflow.checkpoints.actions.import_external import describe, files_outside_glob, find

    options = foreign_options(spec.path, spec.storage_options, ti.settings)
    spec = msgspec.structs.replace(spec, storage_options=options)
    found = find(spec, ti.project_root, ti.clock.now())
    files = describe(spec, found.folder, ti.project_root)
    try:
        adopt(ledger, found.folder, found.watermark, files, by=author_of(ti), now=ti.clock.now())
    except CheckpointError:
        if not ledger.state().sequence:
            raise
        ti.log.info("the chain was begun by another attempt meanwhile")
        return
    ti.log.info(
        "the chain begins with %s, %s, trained up to %s",
        redact_text(found.folder), counted(len(files), "file"), label(found.watermark),
    )  # fmt: skip
    others = files_outside_glob(spec, found.folder, ti.project_root)
    if others:
        shown = ", ".join(others[:_SHOWN]) + (", …" if len(others) > _SHOWN else "")
        ti.log.warning("adopt.files %r leaves out %s of it: %s", spec.files, counted(len(others), "file"), shown)
