"""`python -m tests.storm`: rounds until the time is over; exit code 1 when a model was wrong."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random

from tests.storm.database_kills import DATABASES, storm
from tests.storm.rounds import Finding, Place, Round
from tests.storm.shapes import SHAPES, Shape
from tests.support.fleets import EXECUTORS
from tests.support.local_object_stores import StoreServer, local_azure, local_gcs, local_s3
from tests.support.local_sftp import local_sftp, openssh_server

SERVERS: dict[str, Callable[[Path], AbstractContextManager[StoreServer]]] = {
    "s3": lambda folder: local_s3(),
    "gcs": lambda folder: local_gcs(),
    "azure": lambda folder: local_azure(folder / "azurite.log"),
    "sftp": lambda folder: local_sftp(folder, openssh_server()),
}


def main() -> int:
    """Run the storm that the command line asks for."""
    options = _options()
    if options.database is not None:
        return _kill_databases(options)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    until = time.monotonic() + options.minutes * 60
    number, wrong = options.round, 0
    with store_server(options.store, folder) as server:
        while number == options.round or (time.monotonic() < until and not (options.only_round or options.kills)):
            seed = f"{options.seed} {number}"
            shape = SHAPES[options.shape or ("latest" if options.kills else Random(seed).choice(list(SHAPES)))]
            place = Place(server.make_url(), server.storage_options) if server else None
            below = folder / f"round{number}"
            below.mkdir()
            found = _play(
                Round(below, shape, seed, place=place, kills=options.kills, pause=options.pause), options.strikes
            )
            _tell(number, shape, found)
            wrong += bool(found.problems)
            if not found.problems:
                shutil.rmtree(below, ignore_errors=True)
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
    parser.add_argument("--store", choices=sorted(SERVERS), help="keep checkpoints on such a server (a local disk)")
    parser.add_argument("--database", choices=sorted(DATABASES), help="kill this server under tasks elsewhere")
    parser.add_argument("--executor", choices=sorted(EXECUTORS), help="with --database: where they run (all)")
    parser.add_argument("--kills", type=int, default=0, help="one round, of so many kills and nothing else")
    parser.add_argument("--pause", type=float, default=0.4, help="seconds between two strikes, in the mean (0.4)")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="only pipelines of this kind")
    parser.add_argument("--round", type=int, default=0, help="begin with this round (0)")
    parser.add_argument("--only-round", action="store_const", const=True, help="and play no other")
    return parser.parse_args()


def _kill_databases(options: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    kinds = [options.executor] if options.executor is not None else list(EXECUTORS)
    wrong = [kind for kind in kinds if not storm(folder / kind, kind, options.database, options.kills or 5)]
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


@contextmanager
def store_server(kind: str | None, folder: Path) -> Iterator[StoreServer | None]:
    """A server of a kind, while it is needed; None for a local disk."""
    if kind is None:
        yield None
    else:
        with SERVERS[kind](folder) as server:
            yield server


def _play(played: Round, strikes: int) -> Finding:
    try:
        found = played.run(strikes)
        if found.problems and played.disk.mounted:
            shutil.copytree(played.disk.folder, played.disk.folder.with_name("disk-copy"), symlinks=True)
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
