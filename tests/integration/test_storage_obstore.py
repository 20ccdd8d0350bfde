"""The driver of S3 against a real server, and servers that fail: forks, signals, lost replies, TLS, proxies."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.support.local_object_stores import LocalAzure, LocalS3
from trainflow.errors import SampleUnreadable, StoreFailure, StoreNotExclusive
from trainflow.storage.drivers import open_driver, probe
from trainflow.storage.obstore import driver as obstore_driver
from trainflow.storage.obstore import runtime
from trainflow.storage.store import Store
from trainflow.storage.urls import open_storage, open_store

Environ = dict[str, Any]
#: what a server does instead of what it is asked: an answer, or None where it does that all the same
Meddling = Callable[[Environ], tuple[int, bytes] | None]


class Meddled:
    """S3, of which each request goes by `meddle` first. `asked`: method and path of each."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._application = DomainDispatcherApplication(create_backend_app)
        self.meddle: Meddling = lambda environ: None
        #: the answer that the real one gave is lost
        self.loses: Callable[[Environ], bool] = lambda environ: False
        self.asked: list[str] = []

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        instead = self.meddle(environ)
        if instead is None:
            answer = self._application(environ, start_response)
            if not self.loses(environ):
                return answer
            b"".join(answer)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, body = instead
        start_response(f"{status} So", [("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def serving(application: Any, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server of an application."""
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, application, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def meddled() -> Iterator[tuple[Meddled, LocalS3]]:
    application = Meddled()
    with serving(application) as port:
        yield application, LocalS3(f"http://127.0.0.1:{port}")


def store_of(s3: LocalS3, **options: Any) -> Store:
    return open_store(f"s3://{s3.make_bucket()}/x", storage_options={**s3.storage_options, **options})


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>It is so</Message></Error>".encode()


# -- processes -----------------------------------------------------------------------------------------------------


FORKS = """
import json, os, sys, threading
from trainflow.storage.drivers import load_before_fork
from trainflow.storage.urls import open_store

url, options, when = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
load_before_fork(url)
assert len(os.listdir("/proc/self/task")) == 1
store = open_store(url, storage_options=options)
assert len(os.listdir("/proc/self/task")) == 1
if when == "after":
    store.create_exclusive("of-parent", b"1")
    assert store.read("of-parent") == b"1"
child = os.fork()
if child == 0:
    signal = threading.Timer(20, os._exit, [9])
    signal.daemon = True
    signal.start()
    try:
        store.create_exclusive("of-child", b"2")
        driver = getattr(store._driver, '_inner', store._driver)
        print(type(driver).__name__, store.read("of-child"), flush=True)
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(sorted(file.path for file in store.files("")))
"""


@pytest.mark.parametrize(("when", "driver"), [("before", "ObstoreDriver"), ("after", "FsspecDriver")])
def test_forked_process_never_makes_a_request_by_what_its_parent_had_begun(s3: LocalS3, when: str, driver: str) -> None:
    url = f"s3://{s3.make_bucket()}/x"
    words = [sys.executable, "-c", FORKS, url, json.dumps(s3.storage_options), when]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    files = ["of-child", "of-parent"] if when == "after" else ["of-child"]
    assert ended.stdout.splitlines() == [f"{driver} b'2'", str(files)]


def test_forked_process_without_fsspecs_driver_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    monkeypatch.setattr(runtime._RUNTIME, "lost", True)
    with pytest.raises(
        Exception, match=r"pip install 'trainflow\[s3\]'; fsspec is to reach it: this process was forked"
    ):
        open_store("s3://bucket/x", storage_options={"key": "a", "secret": "b"})
    with pytest.raises(RuntimeError, match="was forked"):
        runtime.interruptible(lambda: None)


SIGNALLED = """
import json, signal, sys, time
from trainflow.storage.urls import open_store

class Stopped(BaseException):
    pass

def stop(number, frame):
    raise Stopped

signal.signal(signal.SIGTERM, stop)
store = open_store(sys.argv[1], storage_options=json.loads(sys.argv[2]))
calls = {
    "read": lambda: store.read("a"),
    "create": lambda: store.create_exclusive("a", b""),
    "files": lambda: store.files("a"),
    "read_many": lambda: store.read_many(["a", "b", "c"]),
    "delete": lambda: store.delete("a"),
}
print("asks", flush=True)
try:
    calls[sys.argv[3]]()
except Stopped:
    print("stopped", flush=True)
"""


@pytest.mark.parametrize("call", ["read", "create", "files", "read_many", "delete"])
def test_signal_is_handled_while_a_request_is_under_way(call: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        options = {"key": "a", "secret": "b", "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        words = [sys.executable, "-c", SIGNALLED, "s3://bucket/x", json.dumps(options), call]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "asks\n"
            opened, _ = silent.accept()  # it waits for an answer now
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert process.stdout.readline() == "stopped\n"
            assert time.monotonic() - began < 5  # a second, on a machine that has nothing else to do
            process.kill()
            opened.close()


# -- what may be asked again -----------------------------------------------------------------------------------------


def failing(times: int, status: int, code: str, method: str) -> Meddling:
    """Fail so many requests of a method."""
    left = [times]

    def meddle(environ: Environ) -> tuple[int, bytes] | None:
        if environ["REQUEST_METHOD"] != method or not left[0]:
            return None
        left[0] -= 1
        return status, error(code)

    return meddle


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (409, "ConditionalRequestConflict"), (502, "Bad")]
)
def test_request_that_failed_on_its_way_is_made_again(
    meddled: tuple[Meddled, LocalS3], status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    store, waits = store_of(s3), list[float]()
    monkeypatch.setattr(store, "_sleep", waits.append)
    server.meddle = failing(2, status, code, "PUT")
    store.create_exclusive("a", b"1")
    assert len(waits) == 2
    assert sum(waits) < 1
    server.meddle = failing(99, status, code, "GET")
    server.asked.clear()
    with pytest.raises(StoreFailure, match=code):
        store.read("a")
    assert len(server.asked) == 4


def test_retries_of_the_options_are_how_often_a_request_is_made(meddled: tuple[Meddled, LocalS3]) -> None:
    server, s3 = meddled
    store = store_of(s3, config_kwargs={"retries": {"total_max_attempts": 1}})
    server.meddle = failing(99, 500, "InternalError", "GET")
    server.asked.clear()
    with pytest.raises(StoreFailure, match="InternalError"):
        store.read("a")
    assert len(server.asked) == 1


def test_created_where_the_reply_was_lost_the_bytes_decide(meddled: tuple[Meddled, LocalS3]) -> None:
    server, s3 = meddled
    store = store_of(s3)
    lost = [True]
    server.loses = lambda environ: environ["REQUEST_METHOD"] == "PUT" and bool(lost) and lost.pop()
    assert store.created("a", b"mine")
    assert store.read("a") == b"mine"
    lost.append(True)
    assert not store.created("a", b"another's")
    assert store.read("a") == b"mine"


def test_refused_patience_is_waited_for_and_not_for_ever(
    meddled: tuple[Meddled, LocalS3], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    store, waits = store_of(s3), list[float]()
    monkeypatch.setattr(store, "_sleep", waits.append)
    server.meddle = failing(3, 503, "SlowDown", "PUT")
    store.create_exclusive("a", b"1")
    assert len(waits) == 3
    server.meddle = failing(99, 503, "SlowDown", "GET")
    with pytest.raises(StoreFailure, match="asks for fewer requests, and went on asking"):
        store.read("a")


# -- exactly one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_of_forty_races_each_has_one_winner(kind: str, request: pytest.FixtureRequest) -> None:
    server: LocalS3 | LocalAzure = request.getfixturevalue(kind)
    place = f"{'az' if kind == 'azure' else 's3'}://{server.make_bucket()}/x"
    store = open_store(place, storage_options=server.storage_options)
    start = Barrier(8)

    def race(number: int) -> list[int]:
        won = []
        for lap in range(40):
            start.wait()
            try:
                store.create_exclusive(f"race/{lap}", b"%d" % number)
            except FileExistsError:
                continue
            won.append(lap)
        return won

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))
    assert sorted(lap for each in won for lap in each) == list(range(40))
    for number, laps in enumerate(won):
        assert store.read_many([f"race/{lap}" for lap in laps]) == [b"%d" % number] * len(laps)


def overwriting(environ: Environ) -> None:
    """As a server does that knows no conditions."""
    environ.pop("HTTP_IF_NONE_MATCH", None)


def not_implementing(environ: Environ) -> tuple[int, bytes] | None:
    return (501, error("NotImplemented")) if "HTTP_IF_NONE_MATCH" in environ else None


@pytest.mark.parametrize(("meddle", "said"), [(overwriting, "created the same file twice"), (not_implementing, "501")])
def test_server_without_conditional_writes_is_refused_by_the_probe(
    meddled: tuple[Meddled, LocalS3], meddle: Meddling, said: str
) -> None:
    server, s3 = meddled
    store = store_of(s3)
    server.meddle = meddle
    with pytest.raises(StoreNotExclusive, match=said):
        probe(store)


# -- the way there ---------------------------------------------------------------------------------------------------


def openssl(*words: str | Path) -> None:
    made = subprocess.run(["openssl", *words], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no certificate: {made.stderr}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, what it signed for a server, and certificates that servers signed themselves."""
    folder = tmp_path_factory.mktemp("tls")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    name = ("-addext", "subjectAltName=IP:127.0.0.1")
    for kind, words in {
        "authority": ("-subj", "/CN=authority"),
        "own": ("-subj", "/CN=own", "-addext", "basicConstraints=critical,CA:FALSE", *name),
        "own-authority": ("-subj", "/CN=own-authority", *name),
    }.items():
        openssl(*new, "-x509", *words, "-keyout", folder / f"{kind}.key", "-out", folder / f"{kind}.pem")
    signed = ("-CA", folder / "authority.pem", "-CAkey", folder / "authority.key")
    words = ("-subj", "/CN=signed", "-addext", "basicConstraints=CA:FALSE", *name)
    openssl(*new, "-x509", *words, *signed, "-keyout", folder / "signed.key", "-out", folder / "signed.pem")
    return folder


@pytest.mark.parametrize(
    ("used", "trusted", "driver"),
    [
        ("signed", "authority", "obstore"),
        ("own", "own", "obstore"),
        ("own-authority", "own-authority", "fsspec"),
        ("own-authority", None, "obstore"),
    ],
)
def test_certificate_of_ones_own_is_trusted_where_the_options_say_so(
    used: str, trusted: str | None, driver: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{used}.pem", certificates / f"{used}.key")
    application = Meddled()
    with serving(application) as plain, serving(application, context) as port:
        bucket = LocalS3(f"http://127.0.0.1:{plain}").make_bucket()

        def opened(**client: Any) -> Store:
            client["endpoint_url"] = f"https://127.0.0.1:{port}"
            options = {"key": "a", "secret": "b", "driver": driver, "client_kwargs": client}
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
            return open_store(f"s3://{bucket}/x", storage_options=options)

        opened(verify=False).create_exclusive("a", b"1")
        if driver == "obstore":
            with pytest.raises(StoreFailure, match=r"certificate is .*AWS_CA_BUNDLE"):
                opened().read("a")
        if trusted is None:
            with pytest.raises(StoreFailure, match=r"CaUsedAsEndEntity.*CA:FALSE, or write .*driver: fsspec"):
                opened(verify=str(certificates / f"{used}.pem")).read("a")
            return
        assert opened(verify=str(certificates / f"{trusted}.pem")).read("a") == b"1"
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates / f"{trusted}.pem"))
        assert opened().read("a") == b"1"


class Proxy:
    """An HTTP proxy that notes where it is sent."""

    def __init__(self, behind: Meddled) -> None:
        self._behind = behind
        self.seen: list[str] = []

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        self.seen.append(environ["HTTP_HOST"])
        environ["HTTP_HOST"] = "127.0.0.1"
        return self._behind(environ, start_response)


@pytest.mark.parametrize("way", ["option", "environment"])
def test_proxy_is_asked_in_place_of_the_endpoint(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    application = Meddled()
    proxy = Proxy(application)
    with serving(application) as plain, serving(proxy) as port:
        bucket = LocalS3(f"http://127.0.0.1:{plain}").make_bucket()
        options: dict[str, Any] = {"key": "a", "secret": "b", "endpoint_url": "http://store.invalid"}
        if way == "option":
            options["config_kwargs"] = {"proxies": {"http": f"http://127.0.0.1:{port}"}}
        else:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        store = open_store(f"s3://{bucket}/x", storage_options=options)
        store.create_exclusive("a", b"1")
        assert store.read("a") == b"1"
        assert set(proxy.seen) == {"store.invalid"}


def test_bucket_of_another_region_is_asked_there(meddled: tuple[Meddled, LocalS3]) -> None:
    server, s3 = meddled
    bucket = s3.make_bucket()

    def elsewhere(environ: Environ) -> tuple[int, bytes] | None:
        if "/eu-west-1/s3/" in environ.get("HTTP_AUTHORIZATION", ""):
            return None
        return 400, error("AuthorizationHeaderMalformed").replace(b"</Error>", b"<Region>eu-west-1</Region></Error>")

    server.meddle = elsewhere
    store = open_store(f"s3://{bucket}/x", storage_options=s3.storage_options)
    store.create_exclusive("a", b"1")
    server.asked.clear()
    assert store.read("a") == b"1"
    assert len(server.asked) == 1


def test_credentials_of_the_options_go_before_those_of_the_environment(
    meddled: tuple[Meddled, LocalS3], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    bucket, seen = s3.make_bucket(), list[str]()
    server.meddle = lambda environ: seen.append(
        environ["HTTP_AUTHORIZATION"] + str(environ.get("HTTP_X_AMZ_SECURITY_TOKEN"))
    )
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{name}", "of-environment")
    place = f"s3://{bucket}/x"
    open_store(place, storage_options={**s3.storage_options, "key": "mine"}).create_exclusive("a", b"")
    given = {"client_kwargs": s3.storage_options["client_kwargs"]}
    open_store(place, storage_options=given).create_exclusive("b", b"")
    assert "Credential=mine/" in seen[0]
    assert "of-environment" not in seen[0]
    assert seen[1].count("of-environment") == 2


def test_credentials_that_end_are_fetched_again(
    meddled: tuple[Meddled, LocalS3], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    bucket, seen, asked = s3.make_bucket(), list[str](), list[int]()
    server.meddle = lambda environ: seen.append(environ["HTTP_AUTHORIZATION"].partition("Credential=")[2][:5])

    def fetch() -> dict[str, Any]:
        from trainflow.clock import SystemClock

        asked.append(1)
        # nearly over
        return {"access_key_id": f"key-{len(asked)}", "secret_access_key": "s", "expires_at": SystemClock().now()}

    monkeypatch.setattr("trainflow.storage.obstore.s3.credentials", lambda *_, **__: fetch)
    store = open_store(f"s3://{bucket}/x", storage_options={"client_kwargs": s3.storage_options["client_kwargs"]})
    store.replace("a", b"1")
    time.sleep(0.15)  # obstore asks for others no sooner than a tenth of a second later
    store.replace("a", b"1")
    assert seen == ["key-1", "key-2"]


# -- names and contents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["obstore", "fsspec"])
def test_names_that_others_gave_are_read_as_they_are(driver: str, s3: LocalS3) -> None:
    import boto3

    bucket = s3.make_bucket()
    client = boto3.client("s3", endpoint_url=s3.endpoint, aws_access_key_id="a", aws_secret_access_key="b")
    names = ["a b", "a%20b", "a#b", "ü", "h=2024-01-01 00:00:00/x", "[x]~{y}|^", "a&b;c", "a+b", "'q\"", "a:b", "<x>"]
    for name in names:
        client.put_object(Bucket=bucket, Key=f"t/{name}", Body=name.encode())
    # as a console makes folders
    for mark in ("t/", "t/h=2024-01-01 00:00:00/", "t/empty/", "t/deep/empty/"):
        client.put_object(Bucket=bucket, Key=mark, Body=b"")
    client.put_object(Bucket=bucket, Key="t/_SUCCESS", Body=b"")
    client.put_object(Bucket=bucket, Key="t/nothing", Body=b"")
    storage = open_storage(f"s3://{bucket}/t", {**s3.storage_options, "driver": driver}, None)
    found = storage.listing(f"s3://{bucket}/t", recursive=True) or []
    assert [file.path for file in found if file.size_bytes] == sorted(names)
    if driver == "obstore":  # fsspec's shows the marks
        assert [file.path for file in found if not file.size_bytes] == ["_SUCCESS", "nothing"]
    assert [storage.read(f"s3://{bucket}/t/{name}").decode() for name in names] == names


def test_name_that_obstore_cannot_say_names_the_way_out(s3: LocalS3) -> None:
    import boto3

    bucket = s3.make_bucket()
    client = boto3.client("s3", endpoint_url=s3.endpoint, aws_access_key_id="a", aws_secret_access_key="b")
    client.put_object(Bucket=bucket, Key="t//x", Body=b"1")
    storage = open_storage(f"s3://{bucket}/t", s3.storage_options, None)
    with pytest.raises(SampleUnreadable, match=r"empty path segment.*driver: fsspec"):
        storage.listing(f"s3://{bucket}/t", recursive=True)
    drivers = [open_driver(f"s3://{bucket}/{path}", s3.storage_options)[0] for path in ("t//", "t//x")]
    assert [isinstance(each, obstore_driver.ObstoreDriver) for each in drivers] == [True, False]


@pytest.mark.parametrize("kind", ["s3", "azure"])
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 10 * 1024 + 3])
def test_large_files_travel_in_parts_both_ways(
    kind: str, size: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: LocalS3 | LocalAzure = request.getfixturevalue(kind)
    store = open_store(
        f"{'az' if kind == 'azure' else 's3'}://{server.make_bucket()}/x", storage_options=server.storage_options
    )
    content = random.Random(size).randbytes(size)
    (tmp_path / "from").write_bytes(content)
    store.put_file(tmp_path / "from", "a")
    monkeypatch.setattr(obstore_driver, "PART_BYTES", 1024)
    (tmp_path / "to").write_bytes(b"what was there" * 1000)
    store.get_file("a", tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == content
    assert b"".join(store.chunks("a")) == content
    with store.open("a") as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()


def test_file_that_is_replaced_while_it_is_fetched_is_not_a_mixture(
    meddled: tuple[Meddled, LocalS3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    monkeypatch.setattr(obstore_driver, "PART_BYTES", 1024)
    store = store_of(s3)
    store.replace("a", b"1" * 5000)
    replaced = [True]

    def replace(environ: Environ) -> None:
        if environ.get("HTTP_RANGE", "").startswith("bytes=2048") and replaced:
            replaced.pop()
            store.replace("a", b"2" * 5000)

    server.meddle = replace  # type: ignore[assignment]
    with pytest.raises(StoreFailure, match="412"):
        store.get_file("a", tmp_path / "to")


def test_parquet_is_read_by_ranges_and_few_requests(meddled: tuple[Meddled, LocalS3]) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from trainflow.samples.files.parquet_file import opened

    server, s3 = meddled
    sink, chance = io.BytesIO(), random.Random(1)
    columns = {name: [chance.random() for _ in range(100_000)] for name in "abcdefgh"}
    pq.write_table(pa.table(columns), sink, row_group_size=50_000)
    size = len(sink.getvalue())
    place = f"s3://{s3.make_bucket()}/a.parquet"
    storage = open_storage(place, s3.storage_options, None)
    storage.replace(place, sink.getvalue())
    ranges: list[str] = []
    server.meddle = lambda environ: ranges.append(environ.get("HTTP_RANGE", ""))
    with opened(storage, place) as file:
        assert file.parquet.metadata.num_rows == 100_000
        assert len(ranges) == 1  # its end, with the footer
        one = file.parquet.read_row_group(1, columns=["c"])
    assert one.column("c").to_pylist() == columns["c"][50_000:]
    assert len(ranges) <= 3
    spans = [each.removeprefix("bytes=").split("-") for each in ranges[1:]]
    assert sum(int(end) - int(start) for start, end in spans) < size / 4
    ranges.clear()
    with opened(storage, place) as file:
        assert file.parquet.read().num_rows == 100_000
    assert len(ranges) < 20
