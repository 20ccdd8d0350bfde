"""`python -m tests.simulation 4711`: what happens under a seed, and - when it violates something - the
least that it takes. `python -m tests.simulation 0:10000`: the first of many that does."""

from __future__ import annotations

import argparse
import sys
from time import monotonic

from tests.simulation.parallel import first_violation, search
from tests.simulation.run import describe, shrink, simulate


def main() -> int:
    """Exit code 1: something was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seeds", help="N, or FIRST:END[:STEP]")
    parser.add_argument("--processor", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    numbers = [int(part) for part in given.seeds.split(":")]
    if len(numbers) == 1:
        found = simulate(numbers[0])
        _say(describe(shrink(found)))
        return 0 if found.invariant is None else 1
    seeds = range(*numbers)
    if given.processor is not None:
        search(seeds, given.processor)
        return 0
    begun = monotonic()
    first = first_violation(seeds)
    if first is None:
        _say(f"{len(seeds)} seeds, {len(seeds) / (monotonic() - begun):.1f} a second, nothing violated")
        return 0
    _say(describe(shrink(first)))
    return 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
