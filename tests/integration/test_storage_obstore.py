"""The driver of S3 against a real server that fails: forks, signals, tries, lost replies, races."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.support.local_object_stores import LocalAzure, LocalS3
from tests.support.meddled_s3 import Environ, Meddled, Meddling, error, meddled_s3, store_of
from trainflow.errors import StoreFailure, StoreNotExclusive
from trainflow.storage.exclusive_creation import created, probe
from trainflow.storage.obstore import runtime
from trainflow.storage.urls import open_store
from trainflow.testing.processes import DEADLINE_SECONDS


@pytest.fixture
def meddled() -> Iterator[tuple[Meddled, LocalS3]]:
    with meddled_s3() as server:
        yield server


# -- processes -----------------------------------------------------------------------------------------------------


FORKS = """
import json, os, sys, threading
from trainflow.storage.drivers import load_before_fork
from trainflow.storage.urls import open_store

url, options, when = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
load_before_fork(url, options)
assert len(os.listdir("/proc/self/task")) == 1
store = open_store(url, storage_options=options)
assert len(os.listdir("/proc/self/task")) == 1
if when == "after":
    store.create_exclusive("of-parent", b"1")
    assert store.read("of-parent") == b"1"
child = os.fork()
if child == 0:
    signal = threading.Timer(200, os._exit, [9])
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
    ended = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
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
    assert created(store, "a", b"mine")
    assert store.read("a") == b"mine"
    lost.append(True)
    assert not created(store, "a", b"another's")
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


@pytest.mark.exhaustive
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
