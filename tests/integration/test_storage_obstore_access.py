"""The way to a store: certificates, proxies, regions, credentials."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_servers import serving_application
from tests.support.local_object_stores import LocalS3
from tests.support.meddled_s3 import Environ, Meddled, error, meddled_s3
from trainflow.errors import StoreFailure
from trainflow.storage.obstore.driver import ObstoreDriver
from trainflow.storage.obstore.s3 import s3_buckets
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store


@pytest.fixture
def meddled() -> Iterator[tuple[Meddled, LocalS3]]:
    with meddled_s3() as server:
        yield server


# -- the way there ---------------------------------------------------------------------------------------------------


def openssl(*words: str | Path) -> None:
    made = subprocess.run(["openssl", *words], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no certificate: {made.stderr}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, what it signed for a server, and certificates that servers signed themselves."""
    folder = tmp_path_factory.mktemp("tls")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    name = ("-addext", "subjectAltName=IP:127.0.0.1")
    for kind, words in {
        "authority": ("-subj", "/CN=authority"),
        "own": ("-subj", "/CN=own", "-addext", "basicConstraints=critical,CA:FALSE", *name),
        "own-authority": ("-subj", "/CN=own-authority", *name),
    }.items():
        openssl(*new, "-x509", *words, "-keyout", folder / f"{kind}.key", "-out", folder / f"{kind}.pem")
    signed = ("-CA", folder / "authority.pem", "-CAkey", folder / "authority.key")
    words = ("-subj", "/CN=signed", "-addext", "basicConstraints=CA:FALSE", *name)
    openssl(*new, "-x509", *words, *signed, "-keyout", folder / "signed.key", "-out", folder / "signed.pem")
    return folder


@pytest.mark.parametrize(
    ("used", "trusted", "driver"),
    [
        ("signed", "authority", "obstore"),
        ("own", "own", "obstore"),
        ("own-authority", "own-authority", "fsspec"),
        ("own-authority", None, "obstore"),
    ],
)
def test_certificate_of_ones_own_is_trusted_where_the_options_say_so(
    used: str, trusted: str | None, driver: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{used}.pem", certificates / f"{used}.key")
    application = Meddled()
    with serving_application(application) as plain, serving_application(application, context) as port:
        bucket = LocalS3(f"http://127.0.0.1:{plain}").make_bucket()

        def opened(**client: Any) -> Store:
            client["endpoint_url"] = f"https://127.0.0.1:{port}"
            options = {"key": "a", "secret": "b", "driver": driver, "client_kwargs": client}
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
            return open_store(f"s3://{bucket}/x", storage_options=options)

        opened(verify=False).create_exclusive("a", b"1")
        if driver == "obstore":
            with pytest.raises(StoreFailure, match=r"certificate is .*AWS_CA_BUNDLE"):
                opened().read("a")
        if trusted is None:
            with pytest.raises(StoreFailure, match=r"CaUsedAsEndEntity.*CA:FALSE, or write .*driver: fsspec"):
                opened(verify=str(certificates / f"{used}.pem")).read("a")
            return
        assert opened(verify=str(certificates / f"{trusted}.pem")).read("a") == b"1"
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates / f"{trusted}.pem"))
        assert opened().read("a") == b"1"


class Proxy:
    """An HTTP proxy that notes where it is sent."""

    def __init__(self, behind: Meddled) -> None:
        self._behind = behind
        self.seen: list[str] = []

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        self.seen.append(environ["HTTP_HOST"])
        environ["HTTP_HOST"] = "127.0.0.1"
        return self._behind(environ, start_response)


@pytest.mark.parametrize("way", ["option", "environment"])
def test_proxy_is_asked_in_place_of_the_endpoint(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    application = Meddled()
    proxy = Proxy(application)
    with serving_application(application) as plain, serving_application(proxy) as port:
        bucket = LocalS3(f"http://127.0.0.1:{plain}").make_bucket()
        options: dict[str, Any] = {"key": "a", "secret": "b", "endpoint_url": "http://store.invalid"}
        if way == "option":
            options["config_kwargs"] = {"proxies": {"http": f"http://127.0.0.1:{port}"}}
        else:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        store = open_store(f"s3://{bucket}/x", storage_options=options)
        store.create_exclusive("a", b"1")
        assert store.read("a") == b"1"
        assert set(proxy.seen) == {"store.invalid"}


def test_bucket_of_another_region_is_asked_there(meddled: tuple[Meddled, LocalS3]) -> None:
    server, s3 = meddled
    bucket = s3.make_bucket()

    def elsewhere(environ: Environ) -> tuple[int, bytes] | None:
        if "/eu-west-1/s3/" in environ.get("HTTP_AUTHORIZATION", ""):
            return None
        return 400, error("AuthorizationHeaderMalformed").replace(b"</Error>", b"<Region>eu-west-1</Region></Error>")

    server.meddle = elsewhere
    store = open_store(f"s3://{bucket}/x", storage_options=s3.storage_options)
    store.create_exclusive("a", b"1")
    server.asked.clear()
    assert store.read("a") == b"1"
    assert len(server.asked) == 1


def test_credentials_of_the_options_go_before_those_of_the_environment(
    meddled: tuple[Meddled, LocalS3], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    bucket, seen = s3.make_bucket(), list[str]()
    server.meddle = lambda environ: seen.append(
        environ["HTTP_AUTHORIZATION"] + str(environ.get("HTTP_X_AMZ_SECURITY_TOKEN"))
    )
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{name}", "of-environment")
    place = f"s3://{bucket}/x"
    open_store(place, storage_options={**s3.storage_options, "key": "mine"}).create_exclusive("a", b"")
    given = {"client_kwargs": s3.storage_options["client_kwargs"]}
    open_store(place, storage_options=given).create_exclusive("b", b"")
    assert "Credential=mine/" in seen[0]
    assert "of-environment" not in seen[0]
    assert seen[1].count("of-environment") == 2


def test_credentials_that_end_are_fetched_again(
    meddled: tuple[Meddled, LocalS3], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    bucket, seen, asked = s3.make_bucket(), list[str](), list[int]()
    server.meddle = lambda environ: seen.append(environ["HTTP_AUTHORIZATION"].partition("Credential=")[2][:5])

    def fetch() -> dict[str, Any]:
        from trainflow.clock import SystemClock

        asked.append(1)
        # nearly over
        return {"access_key_id": f"key-{len(asked)}", "secret_access_key": "s", "expires_at": SystemClock().now()}

    monkeypatch.setattr("trainflow.storage.obstore.s3.credentials", lambda *_, **__: fetch)
    store = open_store(f"s3://{bucket}/x", storage_options={"client_kwargs": s3.storage_options["client_kwargs"]})
    store.replace("a", b"1")
    time.sleep(0.15)  # obstore asks for others no sooner than a tenth of a second later
    store.replace("a", b"1")
    assert seen == ["key-1", "key-2"]


KEYS = "[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n"


def _refuses(expired: set[str]) -> Callable[[Environ], tuple[int, bytes] | None]:
    """Refuse keys as S3 does: by the code in the body, which the answer to HEAD lacks."""

    def refuse(environ: Environ) -> tuple[int, bytes] | None:
        key = environ["HTTP_AUTHORIZATION"].partition("Credential=")[2].partition("/")[0]
        head = environ["REQUEST_METHOD"] == "HEAD"
        return (403, b"" if head else error("InvalidAccessKeyId")) if key in expired else None

    return refuse


@pytest.fixture
def keys_of_a_file(meddled: tuple[Meddled, LocalS3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of credentials that the store is opened with."""
    place = tmp_path / "credentials"
    place.write_text(KEYS.format(key="old"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(place))
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    return place


def test_keys_that_were_replaced_in_their_file_are_read_again_when_they_are_refused(
    meddled: tuple[Meddled, LocalS3], keys_of_a_file: Path, tmp_path: Path
) -> None:
    server, s3 = meddled
    driver = _driver(s3)
    bucket, expired = s3.make_bucket(), set[str]()
    server.meddle = _refuses(expired)
    driver.create(f"{bucket}/a", b"1")

    keys_of_a_file.write_text(KEYS.format(key="new"))
    expired.add("old")
    assert driver.read(f"{bucket}/a") == b"1"
    server.asked.clear()
    assert driver.is_file(f"{bucket}/a")
    assert len(server.asked) == 1

    # HEAD, many threads at once, and a file that is being written
    expired.add("new")
    keys_of_a_file.write_text(KEYS.format(key="newest"))
    assert driver.is_file(f"{bucket}/a")
    keys_of_a_file.write_text("")
    assert driver.read(f"{bucket}/a") == b"1"
    expired.add("newest")
    keys_of_a_file.write_text(KEYS.format(key="last"))
    assert driver.read_many([f"{bucket}/a"] * 20) == [b"1"] * 20
    source = tmp_path / "large"
    source.write_bytes(bytes(9 << 20))
    driver.upload(source, f"{bucket}/b")
    assert driver.is_file(f"{bucket}/b")


def test_keys_that_are_refused_and_were_not_replaced_are_tried_once(
    meddled: tuple[Meddled, LocalS3], keys_of_a_file: Path
) -> None:
    server, s3 = meddled
    driver = _driver(s3)
    bucket = s3.make_bucket()
    server.asked.clear()
    server.meddle = _refuses({"old"})
    with pytest.raises(PermissionError, match="403 InvalidAccessKeyId"):
        driver.read(f"{bucket}/a")
    assert len(server.asked) == 1


def _driver(s3: LocalS3) -> ObstoreDriver:
    buckets = s3_buckets({"endpoint_url": s3.endpoint}, os.environ)
    return ObstoreDriver(buckets, lambda location: location.partition("://")[2])


ROLE = """
[profile base]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = s
[profile role]
role_arn = arn:aws:iam::123456789012:role/of-trainer
source_profile = base
region = us-east-1
"""


def test_role_of_a_profile_is_assumed_by_botocore_and_used(
    meddled: tuple[Meddled, LocalS3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("botocore")
    server, s3 = meddled
    bucket, seen = s3.make_bucket(), list[str]()
    (tmp_path / "config").write_text(ROLE)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)  # of STS and of S3
    server.meddle = lambda environ: seen.append(environ.get("HTTP_X_AMZ_SECURITY_TOKEN", ""))

    store = open_store(f"s3://{bucket}/x", storage_options={"profile": "role"})
    store.create_exclusive("a", b"1")
    assert store.read("a") == b"1"

    of_sts, *of_s3 = seen
    assert not of_sts
    assert len(of_s3) == 2
    assert all(of_s3)
