"""An S3 server for large files, in a process of its own: contents go to files of a folder and are never held in memory,
which moto does. It knows what checkpoints ask for, signs and checks nothing, and counts the bytes that it takes.

    python -m tests.support.plain_s3 FOLDER     prints its port, serves until it is killed
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import msgspec

#: while the folder has a file of this name, what goes to a path that holds its text is not taken further
HOLD = "hold"
_CHUNK = 1 << 20
_CLOCK = "%a, %d %b %Y %H:%M:%S GMT"


class Stored(NamedTuple):
    """An object: the files that it lies in, one after the other."""

    parts: list[tuple[Path, int]]
    tag: str
    at: datetime

    @property
    def size(self) -> int:
        return sum(size for _, size in self.parts)


class Bucket:
    """All objects of one server, and uploads that have begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, dict[int, tuple[Path, int]]] = {}
        self.taken = 0
        self.held = 0
        self.lock = threading.Lock()

    def put(self, key: str, parts: list[tuple[Path, int]], tag: str) -> None:
        """Put an object there, in the place of what was."""
        before = self.objects.get(key)
        self.objects[key] = Stored(parts, tag, datetime.now(UTC))
        for path, _ in before.parts if before else ():
            path.unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_: object) -> None:
        pass

    def _where(self) -> tuple[str, dict[str, str]]:
        path, _, query = self.path.partition("?")
        return urllib.parse.unquote(path).lstrip("/"), dict(urllib.parse.parse_qsl(query, keep_blank_values=True))

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _take(self) -> tuple[Path, int]:
        """What is sent, in a file."""
        left = size = int(self.headers.get("Content-Length") or 0)
        path = self.bucket.folder / uuid.uuid4().hex
        with path.open("wb") as file:
            while left:
                data = self.rfile.read(min(left, _CHUNK))
                if not data:
                    raise ConnectionError("cut off")
                file.write(data)
                left -= len(data)
                self._hold()
        with self.bucket.lock:
            self.bucket.taken += size
        return path, size

    def _hold(self) -> None:
        held = False
        with suppress(FileNotFoundError):
            while (self.bucket.folder / HOLD).read_text() in self.path:
                self.bucket.held += not held
                held = True
                time.sleep(0.01)

    def do_PUT(self) -> None:
        key, query = self._where()
        part = self._take()
        tag = f'"{hashlib.md5(part[0].name.encode()).hexdigest()}"'
        with self.bucket.lock:
            if "uploadId" in query:
                self.bucket.uploads[query["uploadId"]][int(query["partNumber"])] = part
            elif self.headers.get("If-None-Match") == "*" and key in self.bucket.objects:
                tag = ""
            else:
                self.bucket.put(key, [part], tag)
        if tag:
            self._answer(200, ETag=tag)
        else:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")

    def do_POST(self) -> None:
        key, query = self._where()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        bucket, _, rest = key.partition("/")
        place = f"<Bucket>{bucket}</Bucket><Key>{escape(rest)}</Key>"
        if "uploads" in query:
            name = uuid.uuid4().hex
            self.bucket.uploads[name] = {}
            self._answer(200, _document("InitiateMultipartUploadResult", f"{place}<UploadId>{name}</UploadId>"))
        elif "delete" in query:
            keys = [each.text or "" for each in ElementTree.fromstring(body).iter() if each.tag.endswith("Key")]
            for each in keys:
                stored = self.bucket.objects.pop(f"{key.rstrip('/')}/{each}", None)
                for path, _ in stored.parts if stored else ():
                    path.unlink()
            said = "".join(f"<Deleted><Key>{escape(each)}</Key></Deleted>" for each in keys)
            self._answer(200, _document("DeleteResult", said))
        else:
            parts = self.bucket.uploads.pop(query["uploadId"])
            tag = f'"{uuid.uuid4().hex}-{len(parts)}"'
            with self.bucket.lock:
                self.bucket.put(key, [parts[number] for number in sorted(parts)], tag)
            self._answer(200, _document("CompleteMultipartUploadResult", f"{place}<ETag>{escape(tag)}</ETag>"))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key, query = self._where()
        stored = self.bucket.objects.get(key)
        if key == "-/state":
            uploads = {name: sum(size for _, size in parts.values()) for name, parts in self.bucket.uploads.items()}
            self._answer(
                200, msgspec.json.encode({"taken": self.bucket.taken, "held": self.bucket.held, "uploads": uploads})
            )
        elif "list-type" in query:
            self._answer(200, self._listing(key.strip("/"), query).encode())
        elif stored is None:
            self._answer(404, _document("Error", "<Code>NoSuchKey</Code>"))
        else:
            self._give(stored, self.headers.get("Range"))

    def _give(self, stored: Stored, asked: str | None) -> None:
        first, last = 0, stored.size - 1
        if asked:
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            if begin:
                first, last = int(begin), min(int(end or last), last)
            else:
                first = max(0, stored.size - int(end))
            if first > last:
                self._answer(416, _document("Error", "<Code>InvalidRange</Code>"))
                return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", stored.tag)
        self.send_header("Last-Modified", stored.at.strftime(_CLOCK))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{stored.size}")
        self.end_headers()
        if self.command == "GET":
            self._send(stored, first, last + 1)

    def _send(self, stored: Stored, first: int, end: int) -> None:
        self.wfile.flush()
        at = 0
        for path, size in stored.parts:
            start, stop = max(first - at, 0), min(end - at, size)
            if start < stop:
                with path.open("rb") as file:
                    while start < stop:
                        start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)
            at += size

    def _listing(self, bucket: str, query: dict[str, str]) -> str:
        prefix, delimiter, after = query.get("prefix", ""), query.get("delimiter"), query.get("start-after", "")
        folders, files = set(), []
        for path, stored in sorted(self.bucket.objects.items()):
            key = path.removeprefix(f"{bucket}/")
            if not path.startswith(f"{bucket}/{prefix}") or key <= after:
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            files.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{stored.size}</Size><ETag>{escape(stored.tag)}</ETag>"
                f"<LastModified>{stored.at:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
            )
        below = "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders))
        return (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(files)}</KeyCount>"
            f"<MaxKeys>100000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(files)}{below}</ListBucketResult>"
        )


def _document(name: str, inside: str) -> bytes:
    return f"<{name}>{inside}</{name}>".encode()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that was killed is none."""


class PlainS3(NamedTuple):
    """Where the server is."""

    endpoint: str

    @property
    def storage_options(self) -> dict[str, object]:
        """What reaches it through fsspec."""
        return {"key": "a", "secret": "b", "client_kwargs": {"region_name": "us-east-1"}, "endpoint_url": self.endpoint}

    def state(self) -> dict[str, object]:
        """`taken`: bytes that were sent; `held`: requests that were held so far; `uploads`: bytes of parts of what was
        begun and not completed."""
        import urllib.request

        with urllib.request.urlopen(f"{self.endpoint}/-/state") as answer:
            found: dict[str, object] = msgspec.json.decode(answer.read())
        return found


@contextmanager
def plain_s3(folder: Path) -> Iterator[PlainS3]:
    """Run the server, with its contents in a folder."""
    words = [sys.executable, "-m", "tests.support.plain_s3", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield PlainS3(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Serve."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    _Handler.bucket = Bucket(folder)
    server = _Server(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
