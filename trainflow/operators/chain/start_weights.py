"""Where the weights of a chain's next run come from: the checkpoint of an upstream, a fork point, or adopted files.

The rule is that of `trainflow.checkpoints.stages.start_checkpoint`, asked of two ledgers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from trainflow.checkpoints.stages.init_from import UpstreamCheckpoint
from trainflow.checkpoints.stages.start_checkpoint import (
    StartFromOwn,
    StartRefused,
    WaitForUpstream,
    choose_for,
    read_upstream_chain,
)
from trainflow.errors import CheckpointError, CheckpointNotFound, FailException
from trainflow.humanize import counted
from trainflow.observability.redaction import redact_text
from trainflow.operators.chain.chain_operator import author_of
from trainflow.operators.chain.storage_options import foreign_options
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.entries import Fork
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.checkpoints.ledger_changes.import_spec import Adopt
    from trainflow.checkpoints.stages.init_from import InitFrom, Pin
    from trainflow.operators.chain.head import Head
    from trainflow.samples.spec import Samples

#: before every partition
_NEVER = datetime.min.replace(tzinfo=UTC)


def with_upstream(head: Head, init: InitFrom, ledger: Ledger, pin: Pin | None, samples: Samples | None) -> Head:
    """`head`, that of the chain of `ledger`, with what its upstream in the same store offers. `samples` is the stage's
    own table.

    Raises FailException for a pin that cannot be used, CheckpointNotFound when a chain of another pipeline, whose
    commits trigger nothing here, has no checkpoint yet.
    """
    edge = head.skips[-1].end if head.skips else head.watermark
    upstream = read_upstream_chain(ledger.other(init.chain), head.watermark, pin, init.through)
    choice = choose_for(init, upstream, head.watermark, edge, samples, pin)
    if isinstance(choice, StartRefused):
        raise FailException(choice.reason)
    if isinstance(choice, WaitForUpstream):
        if init.chain.pipeline != head.pipeline and not upstream.line:
            raise CheckpointNotFound(f"chain {init.chain} in {head.store} has no checkpoint yet: train it first")
        return msgspec.structs.replace(head, waits=choice.reason)
    if isinstance(choice, StartFromOwn):
        return msgspec.structs.replace(head, retrigger_before=choice.retrigger_before or _NEVER)
    begins_at = head.watermark
    if begins_at is None and init.chain.is_same_stage(head.chain):
        begins_at = choice.candidates[-1].watermark
    return msgspec.structs.replace(
        head,
        watermark=begins_at,
        upstream=init.chain,
        candidates=choice.candidates,
        last=choice.last,
        bounded=choice.bounded,
        retrigger_before=None if init.once else choice.retrigger_before,
    )


def first_start(ledger: Ledger, init: InitFrom) -> Pin | None:
    """The checkpoint that a stage which starts once began with, and begins with again where it was rewound to nothing;
    None: it never began."""
    from trainflow.checkpoints.stages.init_from import Pin

    origins = [each for each in ledger.state().origins if each.chain == init.chain]
    return Pin(init.chain, origins[-1].checkpoint_id) if origins else None


def with_fork_point(head: Head, fork: Fork) -> Head:
    """`head` of a branch that has no checkpoint of its own yet: it goes on from where it was forked off."""
    origin = UpstreamCheckpoint(fork.origin.checkpoint_id, fork.number, fork.watermark)
    return msgspec.structs.replace(head, upstream=fork.origin.chain, candidates=[origin])


#: so many names are told
_SHOWN = 10


def adopt_checkpoint(ledger: Ledger, spec: Adopt, ti: TaskInstance) -> None:
    """Write the first entry. Of two engines that do so at once one wins, and both go on from what it adopted.

    Raises CheckpointNotFound when there is nothing to adopt (yet), SampleUnreadable, StoreFailure.
    """
    from trainflow.checkpoints.ledger_changes.fork import adopt
    from trainflow.checkpoints.ledger_changes.import_external import describe, files_outside_glob, find

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
