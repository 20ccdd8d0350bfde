"""100 parallel no-op tasks on 4 slots, each in a process of its own."""

from __future__ import annotations

from tests.benchmarks.workbench import bench, show

PIPELINE = """
from trainflow import DAG
from trainflow.operators import EmptyOperator

with DAG("fan_out", max_active_tasks=100):
    for number in range(100):
        EmptyOperator(task_id=f"t{number:03d}")
"""


def main(rounds: int = 5) -> None:
    """Print tasks a second."""
    with bench("[executors.local]\nslots = 4\n", fan_out=PIPELINE) as made:
        rates: list[float] = []
        for number in range(rounds + 1):
            (run,) = made.run_to_end(made.trigger("fan_out"))
            if number:
                rates.append(100 / (run.ended_at - run.started_at).total_seconds())
        show("fan-out of 100 tasks on 4 slots", rates, "tasks/s", "≥ 400 /s")


if __name__ == "__main__":
    main()
