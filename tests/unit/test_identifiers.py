"""Names: some are the same however often they are made, others never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainflow.identifiers import new_attempt_id, triggered_run_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_successor_is_named_by_its_parent_alone() -> None:
    """No clock, no chance, no process: a task that is tried again names the same run. So may a later trainflow have
    to."""
    assert triggered_run_id("model", "run-1", "next") == "operator_triggered__6d1f424c7f4148b36f7b"


@pytest.mark.parametrize(
    "parent",
    [
        ("other", "run-1", "next", -1),
        ("model", "run-2", "next", -1),
        ("model", "run-1", "t", -1),
        ("model", "run-1", "next", 0),
        ("mode", "lrun-1", "next", -1),
    ],
)
def test_successor_id_differs_by_parent(parent: tuple[str, str, str, int]) -> None:
    assert triggered_run_id(*parent) != triggered_run_id("model", "run-1", "next")


def test_attempt_ids_are_unique_and_sort_by_time() -> None:
    names = [new_attempt_id(NOW + timedelta(milliseconds=number)) for number in range(100)]
    assert names == sorted(names)
    assert len({new_attempt_id(NOW) for _ in range(100)}) == 100
