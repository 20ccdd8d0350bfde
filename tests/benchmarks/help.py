"""`trainflow --help`, as a whole process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.workbench import show


def main(rounds: int = 10) -> None:
    """Print seconds, beside those of a Python that does nothing."""
    command = Path(sys.executable).with_name("trainflow")
    for what, arguments, budget in (
        ("trainflow --help", [str(command), "--help"], "≤ 0.07 s"),
        ("python -c pass", [sys.executable, "-c", "pass"], "(limit)"),
    ):
        seconds = []
        for number in range(rounds + 1):
            began = time.perf_counter()
            subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds.append(time.perf_counter() - began)
        show(what, seconds, "s", budget)


if __name__ == "__main__":
    main()
