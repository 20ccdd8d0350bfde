"""A checkpoint for a process that serves it: at hand as a folder, and followed when its alias moves."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from trainflow.client import Client, RemoteCheckpoint
from trainflow.errors import TrainflowError

log = logging.getLogger(__name__)


class OpenCheckpoint:
    """A checkpoint in a folder of this machine. `on_move` is called in a thread of its own, with this object, once
    another checkpoint has the alias and its files are here; what it raises is logged, and the checkpoint stays.

    The folder of the checkpoint before stays until the next move, so that what reads it may end.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        alias: str | None,
        folder: Path,
        *,
        on_move: Callable[[OpenCheckpoint], object] | None,
        poll_seconds: float,
    ) -> None:
        self._client, self._name, self._alias = client, name, alias
        self._folder = folder
        self._on_move = on_move
        self._poll_seconds = poll_seconds
        self._ended = threading.Event()
        self._before: Path | None = None
        self._take(client.checkpoint(name, alias=alias))
        threading.Thread(target=self._follow, name=f"follows {name}", daemon=True).start()

    def _take(self, found: RemoteCheckpoint) -> None:
        path = self._folder / f"{found.number}-{found.id}"
        if not path.is_dir():
            found.download(path)
        self.checkpoint, self.path = found, path

    @property
    def number(self) -> int:
        """The number that the checkpoint is called by."""
        return self.checkpoint.number

    def __repr__(self) -> str:
        return f"OpenCheckpoint({self._name!r}, alias={self._alias!r}, number={self.number}, path={str(self.path)!r})"

    def look(self) -> bool:
        """Whether the alias has moved: then the new checkpoint is here, and `on_move` was called. Raises ApiRefused,
        ServerUnreachable, ArtifactCorrupt; the checkpoint that is here stays."""
        found = self._client.checkpoint(self._name, alias=self._alias)
        if found.id == self.checkpoint.id:
            return False
        before = self.path
        self._take(found)
        if self._before is not None and self._before not in (before, self.path):
            shutil.rmtree(self._before, ignore_errors=True)
        self._before = before
        log.info("%s: checkpoint %d is served from %s", self._name, self.number, self.path)
        if self._on_move is not None:
            self._on_move(self)
        return True

    def _follow(self) -> None:
        while not self._ended.wait(self._poll_seconds):
            try:
                self.look()
            except TrainflowError as error:
                log.warning("%s: checkpoint %d stays: %s", self._name, self.number, error)
            except Exception:
                log.exception("%s: what is called when it moves has failed", self._name)

    def close(self) -> None:
        """Follow no more. The folder stays."""
        self._ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(
    name: str,
    *,
    alias: str | None = None,
    url: str | None = None,
    token: str | None = None,
    folder: Path | str | None = None,
    on_move: Callable[[OpenCheckpoint], object] | None = None,
    poll_seconds: float = 30.0,
) -> OpenCheckpoint:
    """The checkpoint that has an alias (None: the head of the chain), in a folder of this machine, and followed.

    `name`: pipeline, pipeline/stage or pipeline/stage/branch; `url` and `token` as of `Client`; `folder`: where
    checkpoints are kept, one folder each, by default a temporary one. Raises ApiRefused, ServerUnreachable,
    ArtifactCorrupt.
    """
    place = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="trainflow-checkpoint-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        return OpenCheckpoint(Client(url, token), name, alias, place, on_move=on_move, poll_seconds=poll_seconds)
    except BaseException:
        if folder is None:
            with contextlib.suppress(OSError):
                shutil.rmtree(place)
        raise
