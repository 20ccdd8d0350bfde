"""The MLflow store of a home: there as a whole, or not at all.

MLflow makes a SQLite store by creating tables and then migrating them, one committed statement after the other, for
seconds. Killed in between, it leaves a store that it can never open again. So the store is made beside, and renamed.

`python -m trainflow.tracking.local_store_init URI ARTIFACT_ROOT LOCK_FILE` makes it, if it is not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SQLITE = "sqlite:///"
_LOOKS = 100
_PAUSE_SECONDS = 0.2


def create_local_store(uri: str, artifact_root: str) -> None:
    """Make the store that `uri` names unless it is there. The caller holds the lock (`exclusive`)."""
    path = Path(uri.removeprefix(_SQLITE))
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_suffix(".making")
    for leftover in path.parent.glob(f"{making.name}*"):  # with its journal
        leftover.unlink()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    quiet_mlflow()
    store: Any = SqlAlchemyStore
    store(f"{_SQLITE}{making}", artifact_root).engine.dispose()
    making.rename(path)


def quiet_mlflow() -> None:
    """Silence MLflow's news of every migration: a reader of the engine's log can act on none of them."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


@contextlib.contextmanager
def exclusive(lock_file: str | None, *, wait: bool = True) -> Iterator[None]:
    """Wait for another process that writes to the store: a deliverer whose engine was killed ends after the delivery
    in its hands. Raises BlockingIOError instead when it is not to wait."""
    if lock_file is None:
        yield
        return
    Path(lock_file).parent.mkdir(parents=True, exist_ok=True)
    with open(lock_file, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def main(uri: str, artifact_root: str, lock_file: str) -> None:
    """Make it, or wait a while for the deliverer that is about to: it keeps the lock while its engine lives."""
    path = Path(uri.removeprefix(_SQLITE))
    for _ in range(_LOOKS):
        if path.exists():
            return
        with contextlib.suppress(BlockingIOError), exclusive(lock_file, wait=False):
            create_local_store(uri, artifact_root)
            return
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
