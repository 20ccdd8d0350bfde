"""What a chain in an object store asks of it: the scaffold's ten days, a run a day, on a local S3 server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.support.local_object_stores import LocalS3
from trainflow.scaffold.lay_out import lay_out

RUNS = 10
#: what a path of the store means
_KINDS = {
    "ledger entry": re.compile(r"/ledger/\d{10}\.json"),
    "snapshot": re.compile(r"/snapshots/"),
    "page": re.compile(r"/pages/"),
    "artifact": re.compile(r"/artifacts/"),
    "probe": re.compile(r"trainflow-probe"),
    "listing": re.compile(r"list-type=2"),
}


class Requests:
    """A WSGI application that counts what it hands on."""

    def __init__(self, application: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]) -> None:
        self._application = application
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.bytes = 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        sent = int(environ.get("CONTENT_LENGTH") or 0)

        def begin(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kind = next((name for name, pattern in _KINDS.items() if pattern.search(path)), "other")
            self.counts[environ["REQUEST_METHOD"], kind, status[:3]] += 1
            received = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            self.bytes += sent + received
            return start_response(status, headers, *more)

        return self._application(environ, begin)


def main() -> None:
    """Print requests, bytes and seconds a run, on S3 and on the local disk of the same machine."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    requests = Requests(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, requests, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    s3 = LocalS3(f"http://127.0.0.1:{server.server_port}")
    local = _seconds({})
    bucket = s3.make_bucket()
    requests.counts.clear()
    requests.bytes = 0
    options = json.dumps({"endpoint_url": s3.endpoint, "key": "a", "secret": "b"})
    place = {"STORE": f"s3://{bucket}/checkpoints", "STORAGE_OPTIONS": options}
    remote = _seconds({f"TRAINFLOW__CHECKPOINTS__{name}": value for name, value in place.items()})
    server.shutdown()
    total = requests.counts.total()
    print(f"\na chain of {RUNS} runs on S3: {total / RUNS:.0f} requests, {requests.bytes / RUNS / 1e3:,.0f} kB a run")
    for (method, kind, status), count in requests.counts.most_common(12):
        print(f"  {count / RUNS:6.1f}  {method:6} {kind:14} {status}")
    print(f"  {remote / RUNS:.2f} s a run; on the local disk {local / RUNS:.2f} s, {remote / local:.1f} times as long")


def _seconds(environ: dict[str, str]) -> float:
    """How long the ten runs take."""
    command = Path(sys.executable).with_name("trainflow")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        lay_out(root, "project")
        began = time.perf_counter()
        words = [command, "start", "pipelines/example.yaml", "--plain", "--set", "split.partitions=1"]
        ended = subprocess.run(
            words, cwd=root, env={**os.environ, "TRAINFLOW__TRACKING__ENABLED": "false", **environ}, capture_output=True
        )
        if ended.returncode:
            raise RuntimeError(ended.stdout.decode() + ended.stderr.decode())
        return time.perf_counter() - began
