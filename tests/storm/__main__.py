"""`python -m tests.storm`: rounds until the time is over; exit code 1 when a model was wrong."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.storm.rounds import Finding, Round
from tests.storm.shapes import SHAPES, Shape


def main() -> int:
    """Run the storm that the command line asks for."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    until = time.monotonic() + options.minutes * 60
    number, wrong = options.round, 0
    while number == options.round or (time.monotonic() < until and options.only_round is None):
        seed = f"{options.seed} {number}"
        shape = SHAPES[options.shape or Random(seed).choice(list(SHAPES))]
        found = _play(folder / f"round{number}", shape, seed, options.strikes)
        _tell(number, shape, found)
        wrong += bool(found.problems)
        if not found.problems:
            shutil.rmtree(folder / f"round{number}", ignore_errors=True)
        number += 1
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
    where = f"; what is left of them lies in {folder}" if wrong else ""
    sys.stdout.write(f"{number - options.round} rounds, {wrong} with a wrong model{where}\n")
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no round after so many minutes (30)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (1)")
    parser.add_argument("--strikes", type=int, default=40, help="in each round (40)")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="only pipelines of this kind")
    parser.add_argument("--round", type=int, default=0, help="begin with this round (0)")
    parser.add_argument("--only-round", action="store_const", const=True, help="and play no other")
    return parser.parse_args()


def _play(folder: Path, shape: Shape, seed: str, strikes: int) -> Finding:
    folder.mkdir(parents=True)
    played = Round(folder, shape, seed)
    try:
        found = played.run(strikes)
        if found.problems and played.disk.mounted:
            shutil.copytree(played.disk.folder, folder / "disk-copy", symlinks=True)
        return found
    finally:
        played.close()


def _tell(number: int, shape: Shape, found: Finding) -> None:
    strikes = ", ".join(f"{count} {name}" for name, count in sorted(found.strikes.items()))
    sys.stdout.write(f"round {number}: {shape.name}: {found.seconds:.0f} s; {strikes}\n")
    for problem in found.problems:
        sys.stdout.write(f"  WRONG: {problem}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
