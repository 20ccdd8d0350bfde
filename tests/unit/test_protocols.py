"""What begins as a URL and is none is refused, wherever a place is named; so are credentials in the URL of a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.errors import InputError
from trainflow.pipeline_spec.sections import StoreSection
from trainflow.protocols import credentials_problem, slash_problem
from trainflow.samples.pattern import path_pattern
from trainflow.settings.model import CheckpointSettings, TrackingSettings, WorkerSettings
from trainflow.storage.errors import CheckpointFailures
from trainflow.storage.reachability import check_reachable
from trainflow.storage.urls import open_storage, open_store


@pytest.mark.parametrize(
    ("location", "meant"),
    [
        ("s3:/bucket/x", "s3://bucket/x"),
        ("s3:bucket/x", "s3://bucket/x"),
        ("S3:/bucket/x", "S3://bucket/x"),
        ("gs:/b", "gs://b"),
        ("az:/c/x", "az://c/x"),
        ("sftp:/host/x", "sftp://host/x"),
        ("file:/x", "file:///x"),
        ("http:/host:80", "http://host:80"),
        ("s3:/KEY:topsecret@bucket/x", "s3://KEY:***@bucket/x"),
    ],
)
def test_url_that_lacks_a_slash_is_told_as_meant(location: str, meant: str) -> None:
    assert f"did you mean '{meant}'?" in (slash_problem(location) or "")


@pytest.mark.parametrize(
    "location",
    [
        "s3://b/x",
        "s3:///x",
        "file:///x",
        "simplecache::s3://b/x",
        "./s3:/x",
        "checkpoints",
        "/s3:/x",
        "a:b",
        "C:/x",
        "",
    ],
)
def test_url_or_path_has_no_slash_problem(location: str) -> None:
    assert slash_problem(location) is None


PLACES: dict[str, Callable[[str], Any]] = {
    "store of a pipeline": lambda url: StoreSection(url=url),
    "setting checkpoints.store": lambda url: CheckpointSettings(store=url),
    "setting workers.code": lambda url: WorkerSettings(code=f"{url}.zip"),
    "store": open_store,
    "samples": lambda url: open_storage(url, {}, Path()),
    "samples.path": lambda url: path_pattern(f"{url}/{{start:%Y%m%d}}/"),
    "adopt.path": lambda url: Adopt(f"{url}/{{watermark:%Y%m%d}}/"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("url", ["s3:/bucket/x", "gs:/bucket/x", "sftp:/host/x", "file:/x"])
def test_place_whose_url_lacks_a_slash_is_refused(place: str, url: str) -> None:
    with pytest.raises((InputError, ValueError), match=f"did you mean '{url.partition(':')[0]}://"):
        PLACES[place](url)


@pytest.mark.parametrize("uri", ["http:/mlflow:5000", "sqlite:/x.db", "postgresql+psycopg:/db"])
def test_tracking_uri_that_lacks_a_slash_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="is not followed by '//'"):
        TrackingSettings(uri=uri)


@pytest.mark.parametrize("place", ["store of a pipeline", "setting checkpoints.store", "adopt.path"])
def test_credentials_in_url_are_refused_masked(place: str) -> None:
    with pytest.raises((InputError, ValueError), match=r"s3://KEY:\*\*\*@bucket/x.* has credentials in it") as caught:
        PLACES[place]("s3://KEY:topsecret@bucket/x")
    assert "topsecret" not in str(caught.value).partition("[type=")[0]


def test_url_without_credentials_has_no_problem() -> None:
    assert credentials_problem("s3://bucket/x") is None


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("s3://b/x", {"secrt": "topsecret"}, "s3:// has no storage option 'secrt'; did you mean 'secret'?"),
        ("az://b/x", {"acount_key": "topsecret", "account_name": "a"}, "did you mean 'account_key'?"),
        ("gs://b/x", {"tokn": "topsecret"}, "gs:// has no storage option 'tokn'; did you mean 'token'?"),
        ("s3://b/x", {"zork": "topsecret"}, "s3://b/x cannot be used: its driver knows no storage option 'zork'"),
        ("s3://b/x", {"client_kwargs": {"region_nam": "eu"}}, "its driver knows no storage option 'region_nam'"),
    ],
)
def test_storage_option_that_is_not_known_is_named(url: str, options: dict[str, Any], told: str) -> None:
    for module in ("s3fs", "adlfs", "gcsfs"):
        pytest.importorskip(module)
    said = str(check_reachable(url, options, CheckpointFailures(options), 30.0))
    assert told in said
    assert "topsecret" not in said
    assert "TypeError" not in said
