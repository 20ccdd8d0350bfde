"""`kubectl exec`: a command beside those of a container, its channels over a WebSocket."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import subprocess
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import IO, Any
from urllib.parse import parse_qs

from trainflow.testing.kubernetes_api.container import Container
from trainflow.testing.kubernetes_api.kubelet import Kubelet
from trainflow.testing.kubernetes_api.requests import Request
from trainflow.testing.kubernetes_api.resources import PODS, target_of
from trainflow.testing.kubernetes_api.status import ApiStatus, bad_request

_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = 0, 1, 2, 3, 255
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSED, _PING, _PONG = 2, 8, 9, 10


def serve_exec(handler: BaseHTTPRequestHandler, request: Request, query: str, kubelet: Kubelet) -> None:
    """Run a command in the container that a request names, to its end. Raises ApiStatus."""
    target, words = target_of(request.path), parse_qs(query)
    if target is None or target.resource != PODS or target.name is None:
        raise bad_request("only pods run commands")
    run = kubelet.run_named(target.namespace, target.name)
    offered = [each.strip() for each in request.headers.get("sec-websocket-protocol", "").split(",")]
    protocol = next((each for each in _PROTOCOLS if each in offered), None)
    if protocol is None:
        raise ApiStatus(403, "Forbidden", f"none of the protocols {offered} is spoken here")
    container = _running(run.containers, words.get("container", [None])[0], target.name)
    _shake_hands(handler, request.headers["sec-websocket-key"], protocol)
    handler.close_connection = True
    _Exec(handler, container).run(words.get("command", []), stdin="stdin" in words)


def _running(containers: list[Container], name: str | None, pod: str) -> Container:
    for each in containers:
        if name in (None, each.name) and each.process is not None and each.process.returncode is None:
            return each
    raise bad_request(f'pod "{pod}" has no container that runs')


def _shake_hands(handler: BaseHTTPRequestHandler, key: str, protocol: str) -> None:
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    accepted = base64.b64encode(hashlib.sha1(key.encode() + _MAGIC).digest()).decode()
    handler.send_header("Sec-WebSocket-Accept", accepted)
    handler.send_header("Sec-WebSocket-Protocol", protocol)
    handler.end_headers()
    handler.wfile.flush()


class _Exec:
    def __init__(self, handler: BaseHTTPRequestHandler, container: Container) -> None:
        self._read, self._write = handler.rfile, handler.wfile
        self._container = container
        self._lock = threading.Lock()

    def run(self, command: list[str], *, stdin: bool) -> None:
        """Run it, and say how it ended."""
        try:
            process = subprocess.Popen(
                command,
                env=self._container.environ,
                cwd=self._container.folder,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            self._end({"status": "Failure", "message": f'exec: "{command[0]}": {error.strerror}', "code": 500})
            return
        assert process.stdout is not None
        assert process.stderr is not None
        outputs = [
            threading.Thread(target=self._forward, args=(stream, channel), daemon=True)
            for stream, channel in ((process.stdout, _STDOUT), (process.stderr, _STDERR))
        ]
        inputs = threading.Thread(target=self._take, args=(process.stdin,), daemon=True)
        for thread in (*outputs, inputs):
            thread.start()
        for thread in outputs:
            thread.join()
        code = process.wait()
        process.stdout.close()
        process.stderr.close()
        self._end({"status": "Success"} if code == 0 else _failure(code))

    def _forward(self, stream: IO[bytes], channel: int) -> None:
        while piece := stream.read1(65536):  # type: ignore[attr-defined]
            self._send(bytes([channel]) + piece)

    def _take(self, stdin: IO[bytes] | None) -> None:
        """Give the command what comes, until that ends."""
        with suppress(OSError, ValueError, struct.error):
            while (frame := self._frame()) is not None:
                if frame[:1] == bytes([_CLOSE]):
                    break
                if stdin is not None and frame[:1] == bytes([_STDIN]):
                    stdin.write(frame[1:])
                    stdin.flush()
        if stdin is not None:
            with suppress(OSError):
                stdin.close()

    def _frame(self) -> bytes | None:
        """The content of the next frame; None: it is the last."""
        while True:
            first, second = struct.unpack("!BB", self._read.read(2))
            length = second & 127
            if length == 126:
                (length,) = struct.unpack("!H", self._read.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._read.read(8))
            mask = self._read.read(4)
            content = bytes(byte ^ mask[index % 4] for index, byte in enumerate(self._read.read(length)))
            kind = first & 15
            if kind == _CLOSED:
                return None
            if kind == _PING:
                self._send(content, _PONG)
            elif content:
                return content

    def _send(self, content: bytes, kind: int = _BINARY) -> None:
        length = len(content)
        head = struct.pack("!BB", 128 | kind, length) if length < 126 else struct.pack("!BBH", 128 | kind, 126, length)
        if length > 65535:
            head = struct.pack("!BBQ", 128 | kind, 127, length)
        with self._lock, suppress(OSError):
            self._write.write(head + content)
            self._write.flush()

    def _end(self, status: dict[str, Any]) -> None:
        whole = {"kind": "Status", "apiVersion": "v1", "metadata": {}} | status
        self._send(bytes([_ERROR]) + json.dumps(whole).encode())
        self._send(struct.pack("!H", 1000), _CLOSED)


def _failure(code: int) -> dict[str, Any]:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    message = f"command terminated with non-zero exit code: exit status {code}"
    return {"status": "Failure", "reason": "NonZeroExitCode", "message": message, "details": {"causes": causes}}
