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
