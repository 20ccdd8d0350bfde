"""The drivers of stores, imported before processes are forked."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORTS = """
import sys, os
from trainflow.storage.drivers import load_before_fork
load_before_fork(sys.argv[1])
print(sorted({"s3fs", "gcsfs", "fsspec", "obstore", "asyncssh"} & set(sys.modules)), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize(
    ("url", "imported"),
    [
        ("s3://bucket/x", "['obstore']"),
        ("checkpoints", "[]"),
        ("gs://bucket/x", "['obstore']"),
        ("sftp://host/x", "['asyncssh', 'fsspec']"),
        ("simplecache::s3://bucket/x", "[]"),
    ],
)
def test_load_before_fork_imports_what_survives_it_and_starts_no_thread(url: str, imported: str) -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTS, url], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == f"{imported} 1"


OWN_GCS = """
import gcsfs
from trainflow.storage.fsspec_driver import open_filesystem
options = {"token": "anon", "endpoint_url": "http://127.0.0.1:1"}
print(type(open_filesystem("gs://bucket/x", options, own_gcs=True)[0]) is gcsfs.core.GCSFileSystem, gcsfs.GCSFileSystem)
"""


def test_server_in_the_place_of_google_is_never_asked_for_its_kind_of_bucket() -> None:
    """Not where gcsfs was imported before, with what asks: by user code, or for a bucket of Google's."""
    ended = subprocess.run([sys.executable, "-c", OWN_GCS], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("True ")
