"""The drivers of stores, imported before processes are forked."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORTS = """
import sys, os
from trainflow.storage.drivers import load_before_fork
load_before_fork(sys.argv[1])
print(sorted({"s3fs", "gcsfs", "fsspec"} & set(sys.modules)), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize(
    ("url", "imported"),
    [
        ("s3://bucket/x", "['fsspec', 's3fs']"),
        ("checkpoints", "[]"),
        ("gs://bucket/x", "[]"),
        ("simplecache::s3://bucket/x", "[]"),
    ],
)
def test_load_before_fork_imports_what_survives_it_and_starts_no_thread(url: str, imported: str) -> None:
    pytest.importorskip("s3fs")
    ended = subprocess.run([sys.executable, "-c", IMPORTS, url], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == f"{imported} 1"
