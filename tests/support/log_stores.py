"""A control plane whose attempts' logs are sent to a store, and what sends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.engine.log_uploads import LogUploads
from trainflow.settings.model import LogStoreSettings, Settings
from trainflow.storage.store import Store


@contextmanager
def plane_with_log_store(root: Path) -> Iterator[ControlPlane]:
    """A DAG `d` of one task in the home `one`, and a store in `logs` of the same folder."""
    settings = Settings(logs=LogStoreSettings(url=str(root / "logs")))
    with control_plane(root / "one", settings=settings) as plane:
        plane.add_dag("d", empty_task("a"))
        yield plane


def uploads(plane: ControlPlane, store: Callable[[], Store] | None = None) -> LogUploads:
    """What sends the logs of a plane; `store`: another one than that of its settings."""
    return LogUploads(
        plane.project.home, plane.project.root, plane.settings.logs, plane.database, plane.clock, store=store
    )
