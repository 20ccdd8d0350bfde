from __future__ import annotations

import pytest

from trainflow.samples.rows.order import rows_of_step, share


@pytest.mark.parametrize(
    ("rows", "batch_size", "ranks", "steps"),
    [
        (0, 10, 4, []),
        (25, 10, 1, [[10], [10], [5]]),
        (80, 10, 4, [[10, 10, 10, 10], [10, 10, 10, 10]]),
        (84, 10, 4, [[10, 10, 10, 10], [10, 10, 10, 10], [1, 1, 1, 1]]),
        (90, 10, 4, [[10, 10, 10, 10], [10, 10, 10, 10], [2, 3, 2, 3]]),
        # two rows are left for four ranks: the step before leaves two more
        (82, 10, 4, [[10, 10, 10, 10], [9, 10, 9, 10], [1, 1, 1, 1]]),
        (7, 10, 4, [[1, 2, 2, 2]]),
        # fewer rows than ranks, and batches of one row
        (3, 10, 4, [[0, 1, 1, 1]]),
        (5, 1, 3, [[1, 1, 1], [0, 1, 1]]),
    ],
)
def test_rows_of_step_are_shared_out(rows: int, batch_size: int, ranks: int, steps: list[list[int]]) -> None:
    found = []
    while rows:
        step = rows_of_step(rows, batch_size, ranks)
        found.append([high - low for low, high in (share(step, rank, ranks) for rank in range(ranks))])
        rows -= step
    assert found == steps
