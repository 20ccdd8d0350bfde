"""An engine that waits for the next partition: processes, memory, processor time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.processes import cpu_seconds, pss_mib, tree
from tests.benchmarks.waits import PIPELINE
from tests.benchmarks.workbench import show, throw_away_project

ONE = PIPELINE.replace("range(100)", "range(1)").replace(
    'context["dag_run"].conf["until"]', '"2100-01-01T00:00:00+00:00"'
)


def main(seconds: float = 20.0) -> None:
    """Print what an engine costs that has one deferred wait and nothing to do."""
    command = Path(sys.executable).with_name("trainflow")
    with throw_away_project(waits=ONE) as root:
        process = subprocess.Popen(
            [command, "start", "--plain", "pipelines/waits.py"], cwd=root, stdout=subprocess.DEVNULL
        )
        try:
            time.sleep(8.0)
            pids = tree(process.pid)
            used, began = cpu_seconds(pids), time.perf_counter()
            time.sleep(seconds)
            share = (cpu_seconds(pids) - used) / (time.perf_counter() - began) * 100
            show("idle engine: processes", [len(tree(process.pid))], "", "≤ 3")
            show("idle engine: memory (PSS)", [pss_mib(pids)], "MiB", "≤ 100 MiB")
            show("idle engine: processor", [share], "% of a core", "≤ 1 %")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
