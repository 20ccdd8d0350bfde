"""An S3 server in this process (moto), for tests of object stores."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest


class LocalS3(msgspec.Struct, frozen=True):
    """Where the server is. `storage_options` reach it through fsspec."""

    endpoint: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec needs to reach it."""
        return {
            "key": "test",
            "secret": "test",
            "client_kwargs": {"endpoint_url": self.endpoint, "region_name": "us-east-1"},
        }

    def make_bucket(self) -> str:
        """A new, empty bucket; its name."""
        import s3fs

        name = f"bucket-{uuid.uuid4().hex[:12]}"
        s3fs.S3FileSystem(**self.storage_options).call_s3("create_bucket", Bucket=name)
        return name


@contextmanager
def local_s3() -> Iterator[LocalS3]:
    """Run the server on a free port. Where moto is missing the test is skipped; with `CI` set that is an error."""
    try:
        import s3fs  # noqa: F401
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no local S3 server: {error}; pip install 'trainflow[test]'")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield LocalS3(f"http://{host}:{port}")
    finally:
        server.stop()
