"""Where a stage starts from: what a pipeline or a run's conf says, read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.stages.init_from import At, InitFrom, Pin
from trainflow.errors import InputError

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
