"""Options that are written for fsspec, in the words of obstore; an option that it has no word for is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trainflow.errors import InputError
from trainflow.storage.obstore.azure import azure_buckets
from trainflow.storage.obstore.fsspec_options import OptionNotMapped
from trainflow.storage.obstore.gcs import gcs_buckets
from trainflow.storage.obstore.s3 import s3_buckets
from trainflow.storage.obstore.urls import buckets_of, path_of

KEYS = {"key": "k", "secret": "s"}
#: no profile of the user who runs the tests
NOWHERE = {"AWS_CONFIG_FILE": "/nowhere/config", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials"}


def s3(options: dict[str, Any], environ: dict[str, str] | None = None, bucket: str = "bucket") -> dict[str, Any]:
    """All that a bucket is opened with: its configuration, then what the client is told."""
    found = s3_buckets(options, {**NOWHERE, **(environ or {})})
    keys = {} if found.credentials is None else found.credentials()
    return {**found.client, **found.config, **found.of_bucket(bucket), **keys, "tries": found.tries}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token": "t"}, {"access_key_id": "k", "secret_access_key": "s", "token": "t"}),
        ({}, {"region": "us-east-1", "virtual_hosted_style_request": True, "token": None}),
        ({"client_kwargs": {"region_name": "eu-west-1"}}, {"region": "eu-west-1"}),
        ({"endpoint_url": "http://h:9000/"}, {"endpoint": "http://h:9000", "allow_http": True}),
        ({"client_kwargs": {"endpoint_url": "https://h"}}, {"endpoint": "https://h", "allow_http": None}),
        ({"endpoint_url": "https://h"}, {"virtual_hosted_style_request": False}),
        (
            {"endpoint_url": "https://h", "config_kwargs": {"s3": {"addressing_style": "virtual"}}},
            {"virtual_hosted_style_request": True, "endpoint": "https://bucket.h"},
        ),
        ({"config_kwargs": {"s3": {"addressing_style": "path"}}}, {"virtual_hosted_style_request": False}),
        ({"endpoint_url": "https://oss-eu.aliyuncs.com"}, {"disable_bulk_delete": True}),
        ({"client_kwargs": {"verify": False}}, {"allow_invalid_certificates": True}),
        ({"config_kwargs": {"connect_timeout": 2, "read_timeout": 0.5}}, {"connect_timeout": "2000ms"}),
        ({"config_kwargs": {"connect_timeout": 2, "read_timeout": 0.5}}, {"read_timeout": "500ms"}),
        ({"config_kwargs": {"proxies": {"https": "p:1", "http": "http://q:2"}}}, {"proxy_url": "http://p:1"}),
        (
            {"endpoint_url": "http://h", "config_kwargs": {"proxies": {"https": "p:1", "http": "http://q:2"}}},
            {"proxy_url": "http://q:2"},
        ),
        ({"config_kwargs": {"max_pool_connections": 3}}, {"pool_max_idle_per_host": "3"}),
        ({"config_kwargs": {"user_agent": "me"}}, {"user_agent": "me"}),
        ({"config_kwargs": {"retries": {"max_attempts": 2, "mode": "standard"}}}, {"tries": 3}),
        ({"config_kwargs": {"retries": {"total_max_attempts": 2}}}, {"tries": 2}),
        ({"config_kwargs": {"signature_version": "s3v4"}}, {"skip_signature": None}),
        ({"requester_pays": True}, {"request_payer": True}),
        (
            {"s3_additional_kwargs": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "id"}},
            {"server_side_encryption": "aws:kms", "sse_kms_key_id": "id"},
        ),
        ({"default_block_size": 5, "use_listings_cache": True, "max_concurrency": 3, "driver": "obstore"}, {}),
    ],
    ids=str,
)
def test_s3_option_is_said_in_words_of_obstore(options: dict[str, Any], said: dict[str, Any]) -> None:
    found = s3({**KEYS, **options})
    assert {name: found.get(name) for name in said} == said


def test_s3_anonymous_requests_are_not_signed() -> None:
    assert s3({"anon": True})["skip_signature"] is True


def test_s3_bucket_with_dots_is_in_the_path() -> None:
    assert s3(KEYS, bucket="a.b")["virtual_hosted_style_request"] is False


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"version_aware": True}, "version_aware"),
        ({"session": ...}, "session"),
        ({"config_kwargs": {"s3": {"use_accelerate_endpoint": True}}}, "config_kwargs.s3.use_accelerate_endpoint"),
        ({"config_kwargs": {"signature_version": "s3"}}, "config_kwargs.signature_version"),
        ({"s3_additional_kwargs": {"ACL": "public-read"}}, "s3_additional_kwargs.ACL"),
        ({"client_kwargs": {"config": ...}}, "client_kwargs.config"),
        ({"key": "k", "secret": None}, "key"),
        ({"use_ssl": False}, "use_ssl"),
    ],
    ids=str,
)
def test_s3_option_without_a_word_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionNotMapped) as raised:
        s3({**KEYS, **options} if "key" not in options else options)
    assert str(raised.value) == named


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, {"endpoint": "http://b"}),
        ({"AWS_ENDPOINT_URL": "http://a"}, {"endpoint": "http://a"}),
        ({"AWS_DEFAULT_REGION": "r", "AWS_REGION": "s"}, {"region": "s"}),
        ({"AWS_DEFAULT_REGION": "r"}, {"region": "r"}),
    ],
    ids=str,
)
def test_s3_environment_is_heard_beneath_options(environ: dict[str, str], said: dict[str, Any]) -> None:
    found = s3(KEYS, environ)
    assert {name: found.get(name) for name in said} == said
    given = {"client_kwargs": {"endpoint_url": "http://c", "region_name": "t"}}
    assert (s3({**KEYS, **given}, environ)["endpoint"], s3({**KEYS, **given}, environ)["region"]) == ("http://c", "t")


def test_s3_certificates_of_a_file_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"PEM")
    of_option = s3({**KEYS, "client_kwargs": {"verify": str(tmp_path / "ca.pem")}})
    of_environment = s3(KEYS, {"AWS_CA_BUNDLE": str(tmp_path / "ca.pem")})
    assert of_option["root_certificate"] == of_environment["root_certificate"] == b"PEM"
    with pytest.raises(InputError, match=r"none\.pem cannot be read"):
        s3({**KEYS, "client_kwargs": {"verify": str(tmp_path / "none.pem")}})


# -- profiles ------------------------------------------------------------------------------------------------------


CONFIG = """
[default]
region = eu-1
[profile web]
region = eu-2
endpoint_url = http://of-profile
services = mine
[services mine]
s3 =
  endpoint_url = http://of-service
[profile fetched]
credential_process = {python} {folder}/keys.py
"""
CREDENTIALS = """
[default]
aws_access_key_id = of-default
aws_secret_access_key = s
[web]
aws_access_key_id = of-web
aws_secret_access_key = s
aws_session_token = t
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The environment that names the files of profiles."""
    (tmp_path / "config").write_text(CONFIG.format(python=sys.executable, folder=tmp_path))
    (tmp_path / "credentials").write_text(CREDENTIALS)
    return {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}


IN_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "e", "AWS_SECRET_ACCESS_KEY": "e"}
WEB_IDENTITY = {"AWS_WEB_IDENTITY_TOKEN_FILE": "f", "AWS_ROLE_ARN": "r"}


@pytest.mark.parametrize(
    ("options", "environ", "key"),
    [
        ({}, {}, "of-default"),
        ({"profile": "web"}, {}, "of-web"),
        ({}, {"AWS_PROFILE": "web"}, "of-web"),
        ({}, IN_ENVIRONMENT, None),
        ({}, {**IN_ENVIRONMENT, "AWS_PROFILE": "web"}, None),
        ({"profile": "web"}, IN_ENVIRONMENT, "of-web"),
        ({}, WEB_IDENTITY, None),
        ({**KEYS, "profile": "web"}, IN_ENVIRONMENT, "k"),
    ],
    ids=str,
)
def test_s3_credentials_are_found_in_the_order_of_botocore(
    options: dict[str, Any], environ: dict[str, str], key: str | None, files: dict[str, str]
) -> None:
    found = s3_buckets(options, {**files, **environ})
    assert (None if found.credentials is None else found.credentials()["access_key_id"]) == key


def test_s3_profile_names_region_endpoint_and_keys_that_are_read_again(files: dict[str, str]) -> None:
    found = s3_buckets({"profile": "web"}, files)
    assert (found.config["region"], found.config["endpoint"]) == ("eu-2", "http://of-service")
    assert found.credentials is not None
    assert found.credentials()["expires_at"] is not None
    place = Path(files["AWS_SHARED_CREDENTIALS_FILE"])
    place.write_text(place.read_text().replace("of-web", "anew"))
    assert found.credentials()["access_key_id"] == "anew"


def test_s3_profile_that_is_nowhere_is_named(files: dict[str, str]) -> None:
    with pytest.raises(InputError, match="the AWS profile 'absent' is neither in the config file nor"):
        s3_buckets({"profile": "absent"}, files)


def test_s3_profile_with_a_program_is_fetched_by_botocore_until_it_ends(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("botocore")
    said = {"Version": 1, "AccessKeyId": "of-program", "SecretAccessKey": "s", "SessionToken": "t"}
    said["Expiration"] = "2999-01-01T00:00:00Z"
    (tmp_path / "keys.py").write_text(f"print('''{json.dumps(said)}''')")
    for name, value in files.items():
        monkeypatch.setenv(name, value)
    found = s3_buckets({"profile": "fetched"}, files).credentials
    assert found is not None
    keys = found()
    assert (keys["access_key_id"], keys["token"], keys["expires_at"].year) == ("of-program", "t", 2999)


# -- Google and Azure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"token": "anon", "project": "p"}, {"skip_signature": True}),
        ({"token": "cloud"}, {}),
        (
            {"token": {"type": "service_account", "a": 1}},
            {"service_account_key": '{"type": "service_account", "a": 1}'},
        ),
        ({"block_size": 3, "consistency": "none", "access": "full_control"}, {}),
    ],
    ids=str,
)
def test_gcs_option_is_said_in_words_of_obstore(
    options: dict[str, Any], config: dict[str, Any], tmp_path: Path
) -> None:
    assert gcs_buckets(options, {"CLOUDSDK_CONFIG": str(tmp_path)}).config == config


@pytest.mark.parametrize("kind", ["service_account", "authorized_user", "external_account"])
def test_gcs_credentials_of_a_file_are_read_by_obstore_or_fetched(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "keys.json"
    place.write_text(json.dumps({"type": kind}))
    ways = [gcs_buckets({"token": str(place)}, {}), gcs_buckets({}, {"GOOGLE_APPLICATION_CREDENTIALS": str(place)})]
    for found in ways:
        assert (found.credentials is None) == (kind != "external_account")
        assert found.config == ({"application_credentials": str(place)} if found.credentials is None else {})
    with pytest.raises(InputError, match="are not there"):
        gcs_buckets({}, {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "options",
    [{"endpoint_url": "http://h"}, {"requester_pays": True}, {"token": "browser"}, {"access": "read_only"}, {"x": 1}],
    ids=str,
)
def test_gcs_option_without_a_word_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(OptionNotMapped, match=next(iter(options))):
        gcs_buckets({"token": "anon", **options}, {})


ACCOUNT = {"account_name": "me"}


@pytest.mark.parametrize(
    ("options", "environ", "config"),
    [
        ({**ACCOUNT, "account_key": "key"}, {}, {**ACCOUNT, "account_key": "key"}),
        ({**ACCOUNT, "sas_token": "?sv=1&sig=x"}, {}, {**ACCOUNT, "sas_key": "sv=1&sig=x"}),
        ({**ACCOUNT, "credential": "key"}, {}, {**ACCOUNT, "account_key": "key"}),
        ({**ACCOUNT, "credential": "sv=1&sig=x"}, {}, {**ACCOUNT, "sas_key": "sv=1&sig=x"}),
        ({**ACCOUNT, "anon": True}, {}, {**ACCOUNT, "skip_signature": True}),
        (
            {**ACCOUNT, "tenant_id": "t", "client_id": "c", "client_secret": "s"},
            {},
            {**ACCOUNT, "tenant_id": "t", "client_id": "c", "client_secret": "s"},
        ),
        (
            {"connection_string": "AccountName=me;AccountKey=k==;EndpointSuffix=core.chinacloudapi.cn"},
            {},
            {**ACCOUNT, "account_key": "k==", "endpoint": "https://me.blob.core.chinacloudapi.cn"},
        ),
        (
            {"connection_string": "BlobEndpoint=https://h/me;AccountName=me;SharedAccessSignature=sv=1&sig=x"},
            {},
            {**ACCOUNT, "sas_key": "sv=1&sig=x", "endpoint": "https://h/me"},
        ),
        ({}, {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_ACCOUNT_KEY": "k"}, {**ACCOUNT, "account_key": "k"}),
        ({}, {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_SAS_TOKEN": "sig=x"}, {**ACCOUNT, "sas_key": "sig=x"}),
        (
            {**ACCOUNT, "account_key": "k", "account_host": "h"},
            {},
            {**ACCOUNT, "account_key": "k", "endpoint": "https://h"},
        ),
    ],
    ids=str,
)
def test_azure_option_is_said_in_words_of_obstore(
    options: dict[str, Any], environ: dict[str, str], config: dict[str, Any]
) -> None:
    assert azure_buckets("az://container/x", options, environ).config == config


@pytest.mark.parametrize("options", [{"credential": object()}, {"location_mode": "secondary"}, {"request_session": 1}])
def test_azure_option_without_a_word_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(OptionNotMapped, match=next(iter(options))):
        azure_buckets("az://c/x", {**ACCOUNT, "account_key": "k", **options}, {})


def test_azure_account_is_named_in_the_url_or_asked_for() -> None:
    url = "abfss://container@me.dfs.core.windows.net/a/b"
    assert buckets_of(url, {"account_key": "k"}, {}).config["account_name"] == "me"
    assert path_of(url) == "container/a/b"
    with pytest.raises(InputError, match="names no storage account"):
        azure_buckets("az://container/x", {"account_key": "k"}, {})


def test_quick_client_waits_no_longer_than_it_is_told() -> None:
    client = buckets_of("s3://b/x", KEYS, NOWHERE, 0.25).client
    assert (client["connect_timeout"], client["read_timeout"]) == ("250ms", "250ms")
