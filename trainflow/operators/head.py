"""What the checkpoint task hands to the others: which chain, and where its head was. JSON, and free of secrets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.entries import CheckpointRef
from trainflow.errors import FailException


class Head(msgspec.Struct, frozen=True):
    """The head of a chain when the run began. While nothing is committed, `id`, `watermark` and `uri` are None and
    `sequence` is 0."""

    pipeline: str
    stage: str
    branch: str
    #: as the pipeline names it: a URL, or a path relative to the project
    store: str
    id: str | None
    #: the checkpoint's number in the ledger
    sequence: int
    watermark: datetime | None
    uri: str | None = None
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    #: the checkpoint of an earlier stage that is gone on from while this chain has none of its own
    origin: CheckpointRef | None = None

    @property
    def chain(self) -> ChainKey:
        return ChainKey(self.pipeline, self.stage, self.branch)


def head_to_xcom(head: Head) -> dict[str, Any]:
    """As JSON."""
    value: dict[str, Any] = msgspec.to_builtins(head)
    return value


def head_from_xcom(value: Any, task_id: str) -> Head:
    """The inverse. Raises FailException for what no CheckpointOperator pushed."""
    try:
        return msgspec.convert(value, Head)
    except msgspec.ValidationError as error:
        raise FailException(
            f"task {task_id!r}: 'checkpoint' is not what a CheckpointOperator hands over ({error}): "
            "give it the output of that task"
        ) from None
