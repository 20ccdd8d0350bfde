"""`python -m tests.people`: sessions until the time is over; exit code 1 when one found something."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.people.commands import Ended
from tests.people.session import Session


def main() -> int:
    """Play the sessions that the command line asks for."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="people-"))
    until = time.monotonic() + options.minutes * 60
    seed, wrong = options.seed, 0
    while seed == options.seed or (time.monotonic() < until and not options.only):
        below = folder / str(seed)
        below.mkdir()
        found = play(below, seed, options)
        wrong += bool(found)
        if not found and not options.keep:
            shutil.rmtree(below, ignore_errors=True)
        seed += 1
    where = f"; what is left lies in {folder}" if wrong or options.keep else ""
    sys.stdout.write(f"{seed - options.seed} sessions, {wrong} with something wrong{where}\n")
    return 1 if wrong else 0


def play(folder: Path, seed: int, options: argparse.Namespace) -> list[str]:
    """One session, told in a few lines."""
    spec = find_spec("trainflow")
    package = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    session = Session(folder, str(seed), days=options.days, megabytes=options.megabytes, package=package)
    began = time.monotonic()
    try:
        found = session.play(session.drawn(options.deeds))
    finally:
        session.close()
    done = ", ".join(f"{count} {name}" for name, count in sorted(session.done.items()))
    sys.stdout.write(f"seed {seed}: {time.monotonic() - began:.0f} s; {done}\n")
    for problem in dict.fromkeys(found):
        sys.stdout.write(f"  WRONG: {problem}\n")
    if options.said:
        for words, text in sorted({_refusal(ended) for ended in session.said if ended.code in (1, 2)}):
            sys.stdout.write(f"  {words}\n    {text}\n")
    sys.stdout.flush()
    return found


def _refusal(ended: Ended) -> tuple[str, str]:
    """What was refused, without what differs from time to time."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z?|\b[0-9a-f]{6,}\b", "…", ended.output.strip()[-600:])
    return " ".join(ended.words), text.replace("\n", "\n    ")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.people", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no session after so many minutes (30)")
    parser.add_argument("--seed", type=int, default=1, help="of the first session (1)")
    parser.add_argument("--deeds", type=int, default=40, help="in each session (40)")
    parser.add_argument("--days", type=int, default=10, help="of samples (10)")
    parser.add_argument("--megabytes", type=int, default=48, help="of a disk of its own, to be filled; 0: none (48)")
    parser.add_argument("--only", action="store_true", help="play one session")
    parser.add_argument("--keep", action="store_true", help="leave the folders of all sessions")
    parser.add_argument("--said", action="store_true", help="print what commands refused, for people to read")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
