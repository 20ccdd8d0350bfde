"""Thousands of deferred waits: until all wait, what that costs, and how fast one wakes."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from sqlalchemy import func, select

from tests.benchmarks.processes import cpu_seconds, pss_mib, tree
from tests.benchmarks.workbench import Bench, bench, show
from trainflow.metadata.queries.run_queries import RUN
from trainflow.metadata.queries.task_queries import TASK

PIPELINE = """
from datetime import datetime, timedelta, UTC
from trainflow import DAG, BaseOperator
from trainflow.operators.triggers.time import DateTimeTrigger

class Wait(BaseOperator):
    def execute(self, context):
        moment = datetime.fromisoformat(context["dag_run"].conf["until"])
        self.defer(trigger=DateTimeTrigger(moment), method_name="done")

    def done(self, context, event=None):
        return None

with DAG("waits", max_active_tasks=1000, max_active_runs=200):
    for number in range(100):
        Wait(task_id=f"w{number:03d}")
"""

FAR = "2100-01-01T00:00:00+00:00"


def deferred(made: Bench) -> int:
    """How many wait."""
    with made.engine.database.reading() as connection:
        return connection.execute(select(func.count()).where(TASK.c.state == "deferred")).scalar_one()


def main(total: int = 10_000) -> None:
    """Print seconds until all wait, memory and processor time while they do, and how late the first one wakes."""
    with bench("[executors.local]\nslots = 4\n", waits=PIPELINE) as made:
        engine = made.engine
        before = pss_mib(tree(os.getpid()))
        began = time.perf_counter()
        for _ in range(total // 100):
            _trigger(made, FAR)
        _until(made, total)
        show(f"{total:,} deferred waits: until all wait", [time.perf_counter() - began], "s", "≤ 60 s (1,000: 6 s)")
        engine.run(_after(made, 5.0))
        show("  memory of the whole system for them", [pss_mib(tree(os.getpid())) - before], "MiB", "≤ 100 MiB")
        used, clock = cpu_seconds(tree(os.getpid())), time.perf_counter()
        engine.run(_after(made, 20.0))
        share = (cpu_seconds(tree(os.getpid())) - used) / (time.perf_counter() - clock) * 100
        show("  processor while they wait", [share], "% of a core", "≤ 3 %")
        moment = datetime.fromtimestamp(time.time() + 8.0, UTC)
        run = _trigger(made, moment.isoformat())
        made.run_to_end(run)
        with engine.database.reading() as connection:
            first = connection.execute(select(func.min(TASK.c.ended_at)).where(TASK.c.dag_run_id == run)).scalar_one()
        show("  wake: event to resumed task finished", [(first - moment).total_seconds()], "s", "≤ 1 s")


def _trigger(made: Bench, until: str) -> int:
    root = made.trigger("waits")
    with made.engine.database.transaction() as connection:
        connection.execute(RUN.update().where(RUN.c.id == root).values(conf={"until": until}))
    return root


def _until(made: Bench, total: int) -> None:
    over = False

    def look() -> None:
        nonlocal over
        over = deferred(made) >= total
        if not over:
            made.engine.reactor.call_later(0.1, look)

    look()
    made.engine.run(lambda: over)


def _after(made: Bench, seconds: float):  # type: ignore[no-untyped-def]
    over = False

    def set_over() -> None:
        nonlocal over
        over = True

    made.engine.reactor.call_later(seconds, set_over)
    return lambda: over


if __name__ == "__main__":
    main()
