"""The drivers of stores, imported before processes are forked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.local_object_stores import LocalS3
from trainflow.storage import drivers

IMPORTS = """
import sys, os
from trainflow.storage.drivers import load_before_fork
load_before_fork(sys.argv[1])
print(sorted({"s3fs", "gcsfs", "fsspec", "asyncssh"} & set(sys.modules)), len(os.listdir("/proc/self/task")))
"""


def test_models_that_were_read_before_a_fork_serve_each_process_with_a_session_of_its_own(
    s3: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "_S3_MODELS", drivers._S3Models())
    url = f"s3://{s3.make_bucket()}/x"
    drivers.load_before_fork(url)
    opened, base = drivers.open_filesystem(url, s3.storage_options)
    again, _ = drivers.open_filesystem(url, s3.storage_options)
    assert opened is again
    opened.pipe_file(f"{base}/file", b"content")
    assert again.cat_file(f"{base}/file") == b"content"
    session = opened.session
    monkeypatch.setattr("os.getpid", lambda: 1)
    other = drivers._S3_MODELS.options({})["session"]
    assert other is not session
    assert other.get_component("data_loader") is session.get_component("data_loader")
    for asked in ("profile", "session"):
        assert drivers._S3_MODELS.options({asked: "x"}) == {}


@pytest.mark.parametrize(
    ("url", "imported"),
    [
        ("s3://bucket/x", "['fsspec', 's3fs']"),
        ("checkpoints", "[]"),
        ("gs://bucket/x", "[]"),
        ("sftp://host/x", "['asyncssh', 'fsspec']"),
        ("simplecache::s3://bucket/x", "[]"),
    ],
)
def test_load_before_fork_imports_what_survives_it_and_starts_no_thread(url: str, imported: str) -> None:
    pytest.importorskip("s3fs")
    ended = subprocess.run([sys.executable, "-c", IMPORTS, url], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == f"{imported} 1"
