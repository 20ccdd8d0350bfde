from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trainflow.insight.chains.lost_ledger_end import RememberedCheckpoint, describe_loss

FIVE = RememberedCheckpoint(5, 7, datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("found", "last_number", "said"),
    [
        (None, 0, None),
        (FIVE, 5, None),
        # another home went on, or what was committed here was rewound: its number stays
        (FIVE, 6, None),
        (FIVE, 4, "knows none after 4"),
        (FIVE, 0, "knows no checkpoint at all"),
    ],
)
def test_describe_loss_of_what_is_missing(
    found: RememberedCheckpoint | None, last_number: int, said: str | None
) -> None:
    loss = describe_loss(found, last_number, "s3://bucket")
    assert (loss is None) == (said is None)
    if said is not None and loss is not None:
        assert (
            f"run 7 of this home committed checkpoint 5 at 2026-01-02T00:00Z, and the ledger in s3://bucket {said}"
            in loss
        )
