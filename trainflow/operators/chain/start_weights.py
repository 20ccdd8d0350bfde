"""Where the weights of a chain's next run come from: the checkpoint of an upstream, a fork point, or adopted files.

What a pipeline or the conf of a run says of it is read here; the rule is that of
`trainflow.checkpoints.stages.start_checkpoint`, asked of two ledgers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.stages.init_from import At, InitFrom, Pin, UpstreamCheckpoint
from trainflow.checkpoints.stages.start_checkpoint import (
    StartFromOwn,
    StartRefused,
    WaitForUpstream,
    choose_for,
    read_upstream_chain,
)
from trainflow.errors import CheckpointError, CheckpointNotFound, FailException, InputError
from trainflow.humanize import counted
from trainflow.observability.redaction import redact_text
from trainflow.operators.chain.chain_operator import author_of
from trainflow.operators.chain.storage_options import foreign_options
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.entries import Fork
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.ledger_changes.import_spec import Adopt
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


KEYS = ("pipeline", "stage", "branch", "at", "once", "feedback", "through", "alias")


def parse_init_from(value: Any, own: ChainKey) -> InitFrom:
    """What a pipeline says. Text names a chain, or one checkpoint of it (`pipeline/stage/branch@checkpoint`; stage and
    branch may be left out: `main`), from which the first run starts, and so does what a CheckpointOperator or
    CommitCheckpointOperator hands over. A mapping has the keys `KEYS`, of which `stage` (or `pipeline`) is needed;
    pipeline and branch are else those of the stage itself (of another pipeline: branch `main`), and `at` is
    `same_watermark`, or with `once` `latest`.

    Raises InputError for anything else, and for the stage itself.
    """
    if isinstance(value, Mapping) and "number" not in value:
        init = _declared(value, own)
    else:
        init = _once(value if isinstance(value, Pin) else parse_pin(value))
    if init.chain == own:
        raise InputError(f"init_from names {own} itself: a chain goes on from its own head without being told")
    return init


def parse_pin(value: Any) -> Pin:
    """Which checkpoint a run's conf names: `pipeline/stage/branch@checkpoint` (without `@`: the head), or what a
    CheckpointOperator or CommitCheckpointOperator hands over. Raises InputError for anything else."""
    if isinstance(value, str) and value:
        path, _, named = value.partition("@")
        parts = path.split("/")
        if len(parts) <= 3 and all(parts):
            return Pin(_chain(*parts), named or None)
    elif isinstance(value, Mapping) and "pipeline" in value:
        names = {name: value[name] for name in ("pipeline", "stage", "branch") if name in value}
        checkpoint_id = value.get("id")
        return Pin(_chain(**names), checkpoint_id, value.get("number") if checkpoint_id else None)
    raise InputError(
        f"init_from={value!r} names no checkpoint: write 'pipeline/stage/branch' or "
        "'pipeline/stage/branch@checkpoint', or give the output of a CheckpointOperator or CommitCheckpointOperator"
    )


def _once(pin: Pin) -> InitFrom:
    return InitFrom(pin.chain, "latest", once=True, checkpoint_id=pin.id)


def _declared(value: Mapping[str, Any], own: ChainKey) -> InitFrom:
    unknown = [str(key) for key in value if key not in KEYS]
    if unknown or not {"stage", "pipeline"} & set(value):
        wrong = f"unknown: {', '.join(unknown)}" if unknown else "it names no stage"
        raise InputError(f"init_from={dict(value)!r} ({wrong}): its keys are {', '.join(KEYS)}")
    pipeline = value.get("pipeline") or own.pipeline
    stage = value.get("stage") or "main"
    once = bool(value.get("once", False))
    at: At = value.get("at") or ("latest" if once else "same_watermark")
    if at not in get_args(At):
        raise InputError(f"init_from.at={at!r}: it is one of {', '.join(get_args(At))}")
    if once and at == "same_watermark":
        raise InputError("init_from: 'once' starts from the newest checkpoint: at is latest or promoted")
    branch = value.get("branch") or (own.branch if pipeline == own.pipeline else "main")
    return InitFrom(
        _chain(pipeline, stage, branch),
        at,
        once=once,
        feedback=bool(value.get("feedback", False)),
        through=tuple(_chain(pipeline, each, branch) for each in value.get("through") or ()),
        alias=value.get("alias"),
    )


def _chain(*names: Any, **named: Any) -> ChainKey:
    try:
        return msgspec.convert({**dict(zip(("pipeline", "stage", "branch"), names, strict=False)), **named}, ChainKey)
    except (InputError, msgspec.ValidationError) as error:
        raise InputError(f"init_from: {error}") from None
