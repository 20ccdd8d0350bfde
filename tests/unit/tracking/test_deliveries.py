from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from trainflow.deadlines import LONGEST_BACKOFF_SECONDS, backoff_seconds
from trainflow.tracking.deliveries import (
    Delivery,
    RunFinished,
    RunStarted,
    TrackedChain,
    TrackedCheckpoint,
    TrackedRun,
    TrackedSplit,
    encode,
)

decode = msgspec.json.Decoder(Delivery).decode
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = TrackedRun(TrackedChain("p", store="s3://b/c"), "p", "manual__1", AT, 3, {"lr": 0.1}, {"run": "http://x"})
FINISHED = RunFinished(
    RUN,
    "success",
    AT + timedelta(minutes=1),
    split=TrackedSplit(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 15, tzinfo=UTC), 14, "sha256:ab"),
    evaluation={"auc": 0.7, "odd": None},
    checkpoint=TrackedCheckpoint("c", 1, "s3://b/c/1", datetime(2013, 1, 15, tzinfo=UTC)),
)


@pytest.mark.parametrize("delivery", [RunStarted(RUN), FINISHED])
def test_payload_reads_back_as_what_it_was(delivery: Delivery) -> None:
    assert decode(encode(delivery)) == delivery
    assert encode(decode(encode(delivery))) == encode(delivery)


def test_payload_of_another_shape_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"type": "run_abducted"}')


def test_nan_travels_as_none() -> None:
    broken = msgspec.structs.replace(FINISHED, training={"loss": math.nan})
    read = decode(encode(broken))
    assert isinstance(read, RunFinished)
    assert read.training == {"loss": None}


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 5), (2, 10), (3, 20), (6, 160), (7, LONGEST_BACKOFF_SECONDS), (10**6, 300)]
)
def test_backoff_doubles_up_to_its_cap(attempts: int, seconds: float) -> None:
    assert backoff_seconds(attempts) == seconds


def test_backoff_counts_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        backoff_seconds(0)
