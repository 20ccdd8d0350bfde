"""End of one task to end of the next: a chain of 30 no-op tasks, each in a process of its own, durable."""

from __future__ import annotations

from itertools import pairwise

from sqlalchemy import select

from tests.benchmarks.workbench import bench, show
from trainflow.metadata.queries.task_queries import TASK

PIPELINE = """
from trainflow import DAG, chain
from trainflow.operators import EmptyOperator

with DAG("chain_of_30"):
    chain(*[EmptyOperator(task_id=f"t{number:02d}") for number in range(30)])
"""


def main(rounds: int = 5) -> None:
    """Print the latency of a transition, in milliseconds."""
    with bench(chain_of_30=PIPELINE) as made:
        gaps: list[float] = []
        for number in range(rounds + 1):
            root = made.trigger("chain_of_30")
            made.run_to_end(root)
            with made.engine.database.reading() as connection:
                ends = connection.execute(
                    select(TASK.c.ended_at).where(TASK.c.dag_run_id == root).order_by(TASK.c.id)
                ).scalars()
                moments = [moment for moment in ends if moment is not None]
            if number:  # the first round warms up
                gaps += [(b - a).total_seconds() * 1000 for a, b in pairwise(moments)]
        show("transition, end of a task to end of the next", gaps, "ms", "≤ 2.8 ms")


if __name__ == "__main__":
    main()
