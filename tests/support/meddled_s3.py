"""A server of S3 in this process that does something else than it is asked, now and then."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.http_servers import serving_application
from tests.support.local_object_stores import LocalS3, moto_application
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store

Environ = dict[str, Any]
#: what a server does instead of what it is asked: an answer, or None where it does that all the same
Meddling = Callable[[Environ], tuple[int, bytes] | None]


class Meddled:
    """S3, of which each request goes by `meddle` first. `asked`: method and path of each."""

    def __init__(self) -> None:
        self._application = moto_application()
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
def meddled_s3() -> Iterator[tuple[Meddled, LocalS3]]:
    """What meddles, and where the server is."""
    application = Meddled()
    with serving_application(application) as port:
        yield application, LocalS3(f"http://127.0.0.1:{port}")


def store_of(s3: LocalS3, **options: Any) -> Store:
    """A store in a new bucket."""
    return open_store(f"s3://{s3.make_bucket()}/x", storage_options={**s3.storage_options, **options})


def error(code: str) -> bytes:
    """The body of a refusal."""
    return f"<Error><Code>{code}</Code><Message>It is so</Message></Error>".encode()
