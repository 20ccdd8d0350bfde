"""The drivers of stores, imported before processes are forked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTS = """
import json, sys, os
from trainflow.storage.drivers import load_before_fork
load_before_fork(sys.argv[1], json.loads(sys.argv[2]))
drivers = {"s3fs", "gcsfs", "adlfs", "fsspec", "obstore", "asyncssh"}
credentials = {"botocore.session", "google.auth", "azure.identity"}
print(sorted((drivers | credentials) & set(sys.modules)), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("url", "options", "imported"),
    [
        ("s3://bucket/x", {}, "['obstore']"),
        ("checkpoints", {}, "[]"),
        ("gs://bucket/x", {}, "['obstore']"),
        ("az://bucket/x", {"account_name": "a", "anon": True}, "['obstore']"),
        # what fetches credentials, too
        ("s3://bucket/x", {"profile": "role"}, "['botocore.session', 'obstore']"),
        ("gs://bucket/x", {"token": "federated.json"}, "['google.auth', 'obstore']"),
        ("az://bucket/x", {"account_name": "a"}, "['azure.identity', 'obstore']"),
        ("sftp://host/x", {}, "['asyncssh', 'fsspec']"),
        ("simplecache::s3://bucket/x", {}, "['botocore.session', 'fsspec', 's3fs']"),
        ("s3://bucket/x", {"driver": "fsspec"}, "['botocore.session', 'fsspec', 's3fs']"),
        ("gs://bucket/x", {"endpoint_url": "http://127.0.0.1:1"}, "['fsspec', 'gcsfs', 'google.auth']"),
        ("gs://bucket/x", {"requester_pays": True}, "['fsspec', 'gcsfs', 'google.auth']"),
        ("az://bucket/x", {"driver": "fsspec"}, "['adlfs', 'fsspec']"),
        ("https://host/x", {}, "[]"),
    ],
)
def test_load_before_fork_imports_what_survives_it_and_starts_no_thread(
    url: str, options: dict[str, object], imported: str, tmp_path: Path
) -> None:
    """What the options make of it: a driver that each attempt imports anew costs a second an attempt."""
    words = [sys.executable, "-c", IMPORTS, url, json.dumps(options)]
    (tmp_path / "aws").write_text("[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n")
    (tmp_path / "federated.json").write_text('{"type": "external_account"}')
    environ = {**os.environ, "AWS_CONFIG_FILE": str(tmp_path / "aws")}
    ended = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path, env=environ)
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
