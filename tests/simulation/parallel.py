"""Many seeds, over all processors. Which seed is found does not depend on how many there are, or how fast."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.simulation.driver import History
from tests.simulation.run import simulate

_FOUND = "found "
#: where `python -m tests.simulation` is understood
_CHECKOUT = Path(__file__).parents[2]


def first_violation(seeds: range) -> History | None:
    """The history of the first seed that violates something, None when none does. Raises CalledProcessError."""
    count = min(len(processors()), len(seeds))
    with ThreadPoolExecutor(count) as threads:
        # each takes every second (third, …) seed: the first of what each finds first is the first of all
        found = threads.map(_in_a_process, [seeds[number::count] for number in range(count)], processors()[:count])
    return min((simulate(seed) for seed in found if seed is not None), key=lambda history: history.seed, default=None)


def _in_a_process(seeds: range, processor: int) -> int | None:
    which = f"{seeds.start}:{seeds.stop}:{seeds.step}"
    command = [sys.executable, "-m", __package__, which, f"--processor={processor}"]
    done = subprocess.run(command, cwd=_CHECKOUT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_FOUND)]
    return int(lines[0].removeprefix(_FOUND)) if lines else None


def search(seeds: range, processor: int) -> None:
    """What one process does: say which seed is the first that violates something."""
    with pinned_to(processor):
        found = first_of(seeds)
    if found is not None:
        sys.stdout.write(f"{_FOUND}{found.seed}\n")


def first_of(seeds: range) -> History | None:
    """As `first_violation`, in this process alone."""
    return next((history for history in map(simulate, seeds) if history.invariant is not None), None)


@contextmanager
def pinned_to(processor: int) -> Iterator[None]:
    """The fibers of a process take turns, which is slow from one processor to another."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def processor_now() -> int:
    """The one this process runs on; 0 where the system does not say."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[36])


def processors() -> list[int]:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
