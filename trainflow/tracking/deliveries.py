"""What the engine hands to the deliverer and what it hears back. Typed JSON.

Every delivery says everything it needs: it can be delivered alone, again, or after a later one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

#: None stands for NaN and the infinities, which JSON has no form for: they are shown as NaN
Metrics = dict[str, float | None]


class TrackedChain(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names a chain. `store` is the URL of its checkpoint store: the same names over another store name another."""

    pipeline: str
    stage: str = "main"
    branch: str = "main"
    store: str = ""


class TrackedRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """One DagRun. `params` may be nested; secrets in them are cut out before they leave for MLflow."""

    chain: TrackedChain
    dag_id: str
    run_id: str
    started_at: datetime
    #: which run of its DAG this is, from 1; 0 when unknown
    run_number: int = 0
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    #: name → URL or path ("run", "chain", "project", "pipeline")
    links: dict[str, str] = msgspec.field(default_factory=dict)
    #: where the chain's store is, where its name in `chain` does not say
    store: str = ""


class TrackedSplit(msgspec.Struct, frozen=True, omit_defaults=True):
    """The split a run trained on, without its files. `end` is exclusive; `size_bytes` in bytes."""

    start: datetime
    end: datetime
    partitions: int
    digest: str
    rows: int | None = None
    size_bytes: int | None = None
    holes: int = 0
    #: where the samples are (the pattern)
    source: str = ""
    #: what was ready beyond it when it was handed over: partitions, and seconds of samples
    lag_partitions: int | None = None
    lag_seconds: float | None = None


class TrackedCheckpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the run committed."""

    checkpoint_id: str
    number: int
    uri: str
    watermark: datetime
    #: partitions trained from the first checkpoint of the line up to here; 0: not known
    partitions: int = 0
    #: the checkpoint that training began with
    parent_id: str = ""


class ProgressPoint(msgspec.Struct, frozen=True, array_like=True):
    """A metric inside a run: after `done` units, at a moment in milliseconds."""

    done: float
    value: float | None
    at: int


class TrackedAttempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt of one task of a run. `outcome`: how it ended, in one word."""

    task_id: str
    try_number: int
    outcome: str
    started_at: datetime | None = None
    seconds: float | None = None
    hostname: str = ""
    problem: str = ""
    #: metrics that a training reported which did not end well, by name; those of the one that did are the run's
    progress: dict[str, list[ProgressPoint]] = msgspec.field(default_factory=dict)


class RunStarted(msgspec.Struct, frozen=True, tag="run_started"):
    """A DagRun has begun: its MLflow run shall exist, so that user code can log into it."""

    run: TrackedRun


class AliasMoved(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rewind took an alias from the checkpoints `lost` (ids): since then it is `now`'s (None: no checkpoint's)."""

    alias: str
    lost: list[str]
    now: TrackedCheckpoint | None = None


class RunFinished(msgspec.Struct, frozen=True, tag="run_finished", omit_defaults=True):
    """A DagRun has ended. `evaluation`: the head scored the new split before it was trained on (prequential)."""

    run: TrackedRun
    state: Literal["success", "failed", "cancelled"]
    ended_at: datetime
    split: TrackedSplit | None = None
    evaluation: Metrics = msgspec.field(default_factory=dict)
    training: Metrics = msgspec.field(default_factory=dict)
    checkpoint: TrackedCheckpoint | None = None
    #: one sentence ("caught up: …")
    note: str = ""
    #: aliases that the checkpoint got
    promoted: list[str] = msgspec.field(default_factory=list)
    #: what rewinds took from checkpoints of the chain before
    moved: list[AliasMoved] = msgspec.field(default_factory=list)
    #: all attempts of its tasks, in order
    attempts: list[TrackedAttempt] = msgspec.field(default_factory=list)
    #: metrics that the training reported while it ran, by name
    progress: dict[str, list[ProgressPoint]] = msgspec.field(default_factory=dict)


class Promoted(msgspec.Struct, frozen=True, tag="promoted", omit_defaults=True):
    """A checkpoint got an alias. `run` is the one that trained it."""

    run: TrackedRun
    alias: str
    checkpoint: TrackedCheckpoint


class Demoted(msgspec.Struct, frozen=True, tag="demoted"):
    """A rewind took an alias from a checkpoint. `run` is one of the chain that tells it."""

    run: TrackedRun
    moved: AliasMoved


#: a further kind is one more member here and one more branch in `mlflow_runs.Mirror.apply`
Delivery = RunStarted | RunFinished | Promoted | Demoted


class OpenStore(msgspec.Struct, frozen=True, tag="open"):
    """The first frame: where to deliver to. A frame and not an argument, because the URI may hold a password."""

    tracking_uri: str
    #: where artifacts of new experiments go (URI); None: the server decides
    artifact_root: str | None = None
    #: held while delivering, so that a deliverer whose engine was killed cannot overlap with its successor
    lock_file: str | None = None


class Deliver(msgspec.Struct, frozen=True, tag="deliver"):
    """Deliver one row of the outbox. `delivery_id` comes back in the answer."""

    delivery_id: int
    delivery: Delivery


class Delivered(msgspec.Struct, frozen=True, tag="delivered"):
    """MLflow has it. `mlflow_run_id` is the run that `MLFLOW_RUN_ID` of user code has to name."""

    delivery_id: int
    mlflow_run_id: str


class NotDelivered(msgspec.Struct, frozen=True, tag="not_delivered"):
    """MLflow does not have it (or not all of it). `retry` False: MLflow refuses the content, trying again is of no
    use. `reason` is one line without secrets."""

    delivery_id: int
    reason: str
    retry: bool = True


ToDeliverer = OpenStore | Deliver
DeliveryReply = Delivered | NotDelivered
_ANSWER: msgspec.json.Decoder[DeliveryReply] = msgspec.json.Decoder(DeliveryReply)


def kind(delivery: Delivery) -> str:
    """The name of the kind of a delivery, as its payload tells it."""
    return str(delivery.__struct_config__.tag)


def encode(delivery: Delivery) -> bytes:
    """JSON. The same delivery always gives the same bytes."""
    return msgspec.json.encode(delivery, order="deterministic")


def decode_answer(frame: bytes) -> DeliveryReply:
    """Read what a deliverer says. Raises msgspec.DecodeError."""
    return _ANSWER.decode(frame)
