#!/bin/sh
# obstore 0.12.1 keeps one Tokio runtime for the life of a process. A process that is forked after the first request hangs
# in every request of its own, also by a client that it opens itself; one that is forked before works. While a request is
# under way in the main thread no signal handler of Python runs: SIGALRM after 0.2 s is handled when the request has timed
# out, after 2 s. https://github.com/developmentseed/obstore/pull/441 says that it is not fork safe.
#
# Seen:
#   forked before the first request: ends
#   signal after 0.2 s: handled with the end of the request
#   forked after the first request, new client: hangs
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "obstore==0.12.1"
"$folder/venv/bin/python" - <<'PYTHON'
import os
import signal
import socket
import sys
import threading
import time

from obstore.store import S3Store

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"x\"\r\nConnection: close\r\n\r\n"


def server(answers):
    listening = socket.create_server(("127.0.0.1", 0), backlog=16)

    def serve():
        while True:
            connection, _ = listening.accept()
            if answers:
                connection.recv(65536)
                connection.sendall(ANSWER)
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


# the server is a process of its own: it is to survive the forks
reading, writing = os.pipe()
serving = os.fork()
if serving == 0:
    os.write(writing, server(True).encode())
    time.sleep(60)
    os._exit(0)
endpoint = os.read(reading, 100).decode()


def put(endpoint, seconds="10s"):
    store = S3Store(
        "bucket",
        endpoint=endpoint,
        access_key_id="a",
        secret_access_key="b",
        client_options={"allow_http": True, "timeout": seconds},
        retry_config={"max_retries": 0},
    )
    store.put("x", b"", use_multipart=False)


def forked():
    child = os.fork()
    if child == 0:
        put(endpoint)
        os._exit(0)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return "ends"
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


before = forked()
put(endpoint)

handled = []
signal.signal(signal.SIGALRM, lambda *_: handled.append(time.monotonic() - began))
silent, began = server(False), time.monotonic()
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    put(silent, "2s")
except Exception:
    pass
time.sleep(0.1)  # the interpreter looks for signals when something is called
late = handled[0] > 1.5

# last: a child that tries disturbs its parent, with which it shares what the runtime waits on
after = forked()
print(f"forked before the first request: {before}")
print(f"signal after 0.2 s: handled {'with the end of the request' if late else f'after {handled[0]:.1f} s'}")
print(f"forked after the first request, new client: {after}")
os.kill(serving, signal.SIGKILL)
sys.exit(0 if (before, after, late) == ("ends", "hangs", True) else 1)
PYTHON
