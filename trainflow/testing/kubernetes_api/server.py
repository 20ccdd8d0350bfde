"""The server itself: HTTP in threads, tokens and certificates, streams, and the end of it all."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from trainflow.clock import Clock, SystemClock
from trainflow.testing.kubernetes_api.exec_stream import serve_exec
from trainflow.testing.kubernetes_api.faults import Faults
from trainflow.testing.kubernetes_api.kubelet import Kubelet
from trainflow.testing.kubernetes_api.requests import CutConnection, ObjectApi, Request, Response, Rules
from trainflow.testing.kubernetes_api.resources import NAMESPACES, PODS
from trainflow.testing.kubernetes_api.status import ApiStatus
from trainflow.testing.kubernetes_api.versioned_objects import Object, VersionedObjects
from trainflow.testing.processes import HeldPort


class PodApiServer:
    """A Kubernetes API server on a port of this machine, with the namespaces `default` and `kube-system`.

    `tokens`: bearer tokens and what their users may do (None: everything); without it everyone may do all. `tls`: a
    server context; a client whose certificate it has verified may do all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tokens: Mapping[str, Rules | None] | None = None,
        tls: ssl.SSLContext | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`folder`: where pods write. `environ`: variables of their images."""
        self._clock = clock or SystemClock()
        self.store = VersionedObjects(self._clock)
        self.faults = Faults()
        self.kubelet = Kubelet(self.store, folder, environ)
        self.tokens, self.tls = tokens, tls
        self._http: _Http | None = None
        self._port = HeldPort()
        self.api = ObjectApi(self.store, self.kubelet, self.faults, self._clock, lambda: self._http is None)
        for name in ("default", "kube-system"):
            metadata = {"name": name}
            item: Object = {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata}
            self.store.create(NAMESPACES, item | {"status": {"phase": "Active"}})

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port.number}"

    def start(self) -> None:
        """Answer, on the same port as before."""
        self._http = _Http(self, self._port.number)
        self._http.begin()

    def stop(self) -> None:
        """Be away: every connection is cut. Pods run on, and nothing is forgotten."""
        http, self._http = self._http, None
        if http is not None:
            with self.store.changed:
                self.store.changed.notify_all()
            http.end()

    def close(self) -> None:
        """End, and all pods with it."""
        self.stop()
        self._port.release()
        self.kubelet.end()

    def __enter__(self) -> PodApiServer:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def pods(self, namespace: str | None = "default") -> list[Object]:
        """The pods of a namespace."""
        return self.store.listing(PODS, namespace)[1]

    def kubeconfig(self, user: Mapping[str, Any] | None = None, *, ca_file: Path | None = None) -> dict[str, Any]:
        """What a client is configured with: a context called `test`. `user`: its credentials."""
        cluster: dict[str, Any] = {"server": self.url}
        if ca_file is not None:
            cluster["certificate-authority"] = str(ca_file)
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": dict(user or {})}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
        }


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, server: PodApiServer, port: int) -> None:
        self.owner = server
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="pod api server", daemon=True)

    def begin(self) -> None:
        """Answer, in a thread."""
        self._thread.start()

    def end(self) -> None:
        """Answer no more, and cut all connections."""
        self.shutdown()
        self.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.owner.tls is not None:
            request = self.owner.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        parts = urlsplit(self.path)
        try:
            request = Request(
                self.command,
                unquote(parts.path),
                dict(parse_qsl(parts.query, keep_blank_values=True)),
                body,
                headers,
                self._rules(headers),
            )
            if request.path.endswith("/exec"):
                serve_exec(self, request, parts.query, self.server.owner.kubelet)
                return
            self._send(self.server.owner.api.handle(request))
        except ApiStatus as status:
            retry = {"Retry-After": str(status.retry_after)} if status.retry_after is not None else {}
            self._send(Response(status.code, status.body()), retry)
        except CutConnection:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _rules(self, headers: Mapping[str, str]) -> Rules | None:
        """What the user of this connection may do. Raises ApiStatus (401) for one who is not known."""
        tokens = self.server.owner.tokens
        if tokens is None:
            return None
        if isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert():
            return None
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token not in tokens:
            raise ApiStatus(401, "Unauthorized", "Unauthorized")
        return tokens[token]

    def _send(self, response: Response, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(response.code)
        self.send_header("Content-Type", response.kind)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        for warning in response.warnings:
            self.send_header("Warning", f'299 - "{warning}"'.replace("\n", " "))
        if response.stream is None:
            body = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for piece in response.stream:
            if piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
