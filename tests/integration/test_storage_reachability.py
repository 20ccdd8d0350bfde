"""A place that cannot be used is told in one sentence within seconds, whatever its store answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_object_stores import LocalAzure, LocalGCS, LocalS3
from tests.support.tiny_project import FILE, tiny_project
from trainflow.errors import InputError, SampleBucketMissing, StoreMissing
from trainflow.execution.check_stores_main import problems
from trainflow.execution.parse import parse
from trainflow.messages.workload import DagSource, ParseFile
from trainflow.settings.load import load_settings
from trainflow.settings.project import Project, project_at
from trainflow.storage.errors import CheckpointFailures, SampleFailures
from trainflow.storage.reachability import check_reachable
from trainflow.testing.processes import DEADLINE_SECONDS
from trainflow.workspace.store_check import StoreCheck

SECRET = "s3cr3t-of-mine"


@pytest.fixture
def silent() -> Iterator[str]:
    """An endpoint that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def s3_options(endpoint: str) -> dict[str, Any]:
    return {"key": "me", "secret": SECRET, "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"}}


def test_check_reachable_endpoint_that_is_silent_or_closed_is_told(silent: str) -> None:
    pytest.importorskip("s3fs")
    for endpoint, seconds, said in (
        # on a busy machine the time is over before there is a connection
        (silent, 0.3, ("no answer within 0.3 s", "timed out")),
        ("http://127.0.0.1:9", DEADLINE_SECONDS, ("127.0.0.1:9",)),
    ):
        options = s3_options(endpoint)
        found = check_reachable("s3://bucket/x", options, CheckpointFailures(options), seconds=seconds)
        assert any(each in str(found) for each in said)
        assert "check the endpoint in the storage options" in str(found)


@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
def test_check_reachable_bucket_is_told_where_it_is_missing(kind: str, request: pytest.FixtureRequest) -> None:
    server: LocalS3 | LocalGCS | LocalAzure = request.getfixturevalue(kind)
    protocol = {"s3": "s3", "gcs": "gs", "azure": "az"}[kind]
    options = server.storage_options
    there, nowhere = f"{protocol}://{server.make_bucket()}/a/b", f"{protocol}://bucket-nowhere/a/b"

    assert check_reachable(there, options, CheckpointFailures(options), seconds=DEADLINE_SECONDS) is None
    assert isinstance(
        check_reachable(nowhere, options, CheckpointFailures(options), seconds=DEADLINE_SECONDS), StoreMissing
    )
    found = check_reachable(nowhere, options, SampleFailures(options), seconds=DEADLINE_SECONDS)
    assert isinstance(found, SampleBucketMissing)
    assert "'bucket-nowhere' does not exist" in str(found)


def test_check_reachable_wrong_key_of_azure_is_told(azure: LocalAzure) -> None:
    options = azure.options_of(key="d3Jvbmcga2V5")

    found = check_reachable("az://container/x", options, CheckpointFailures(options), seconds=DEADLINE_SECONDS)

    assert "they are absent, wrong or expired" in str(found)
    assert "\n" not in str(found)


def test_check_reachable_place_on_this_machine_is_not_asked() -> None:
    for url in ("checkpoints", "/somewhere/else", "file:///x", "memory://x"):
        assert check_reachable(url, {}, CheckpointFailures(), seconds=DEADLINE_SECONDS) is None


# -- a pipeline ------------------------------------------------------------------------------------------------------


def with_store(project: Project, url: str, options: dict[str, Any]) -> Path:
    """The pipeline file, whose checkpoints are there now."""
    path = project.root / FILE
    section = f"store:\n  url: {url}\n  storage_options: {options!r}\n"
    path.write_text(path.read_text() + section)
    return path


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_store_check_names_line_of_pipeline(tmp_path: Path, s3: LocalS3) -> None:
    project = tiny_project(tmp_path / "project", days=1)
    path = with_store(project_at(project.root), "s3://bucket-nowhere/x", s3.storage_options)
    settings = load_settings(project_at(project.root))

    with StoreCheck(project_at(project.root), settings, path, {}) as check, pytest.raises(InputError) as refused:
        check.raise_if_refused([])

    line = line_of(path, "url: s3")
    assert str(refused.value).startswith(f"{FILE}:{line}: store: s3://bucket-nowhere/x cannot be used: its bucket")


def test_store_check_of_local_places_begins_no_process(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "project", days=1)
    settings = load_settings(project_at(project.root))
    with StoreCheck(project_at(project.root), settings, project.root / FILE, {}) as check:
        check.raise_if_refused(["", "data/{start:%F}"])
        assert check._process is None


def test_problems_store_of_settings_and_samples_are_told_apart(tmp_path: Path, s3: LocalS3) -> None:
    pytest.importorskip("s3fs")
    options = s3.storage_options
    settings = (
        f'[checkpoints]\nstore = "s3://{s3.make_bucket()}/x"\n[checkpoints.storage_options]\nkey = "a"\nsecret = "b"\n'
        f'endpoint_url = "{s3.endpoint}"\n[engine]\nstore_check_seconds = 60\n'  # the machine may be busy
    )
    project = tiny_project(tmp_path / "project", days=1, settings=settings)
    path = project.root / FILE
    request = ParseFile(DagSource(FILE, {}), str(project.root), str(project.home.path))
    assert problems(request) == []

    text = path.read_text()
    old = next(line for line in text.splitlines() if "path:" in line)
    new = f'  path: "s3://samples-nowhere/{{start:%Y-%m-%d}}/"\n  storage_options: {options!r}'
    path.write_text(text.replace(old, new))
    [found] = problems(request)
    assert (found.key, "'samples-nowhere' does not exist" in found.message) == ("samples.path", True)

    # a function that runs before may make the bucket
    path.write_text(f"{path.read_text()}\nprepare: {{function: 'operators.tiny:train'}}\n")
    assert parse(request).problem is None
    assert problems(request) == []


def test_problems_store_is_given_the_time_that_the_setting_says(tmp_path: Path, silent: str) -> None:
    pytest.importorskip("s3fs")
    place = f'[checkpoints]\nstore = "s3://bucket/x"\n[checkpoints.storage_options]\nendpoint_url = "{silent}"\n'
    credentials = 'key = "a"\nsecret = "b"\n'
    project = tiny_project(tmp_path / "project", days=1, settings=place + credentials)
    request = ParseFile(DagSource(FILE, {}), str(project.root), str(project.home.path))

    def say(seconds: float) -> None:
        project.write("configs/trainflow.toml", f"[engine]\nstore_check_seconds = {seconds}\n{place}{credentials}")

    say(0.02)
    [found] = problems(request)
    assert "no answer within 0." in found.message
    assert "engine.store_check_seconds" in found.message
    say(0)
    assert problems(request) == []
    settings = load_settings(project_at(project.root))
    with StoreCheck(project_at(project.root), settings, project.root / FILE, {}) as check:
        check.raise_if_refused(["s3://bucket/x"])
        assert check._process is None
