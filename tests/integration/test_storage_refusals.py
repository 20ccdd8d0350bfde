"""Each way in which a store refuses is told in one sentence, after a request or two, by each driver."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.refusing_server import (
    AZURE,
    GCS,
    GCS_XML,
    S3,
    Refusal,
    RefusingServer,
    refusing_server,
)
from trainflow.storage.errors import CheckpointFailures, RefusalReason, reason_of
from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.driver import ObstoreDriver
from trainflow.storage.obstore.urls import path_of
from trainflow.storage.reachability import check_reachable
from trainflow.testing.processes import DEADLINE_SECONDS

SECRET = "c2VjcmV0IG9mIG1pbmU="
#: what is said besides the remedy
SAID = {
    "s3": {
        "missing": ("BUCKET_MISSING", "its bucket (or container) 'missing' does not exist"),
        "denied": ("DENIED", "is not authorized to perform: s3:ListBucket"),
        "expired": ("EXPIRED", "The provided token has expired"),
        "malformed": ("CREDENTIALS", "The provided token is malformed"),
        "skewed": ("CLOCK", "The difference between the request time and the current time is too large"),
        "region": ("REGION", ""),
        "signed": ("REGION", "eu-west-1"),
        "nokey": ("CREDENTIALS", "The AWS Access Key Id you provided does not exist"),
        "wrongkey": ("CREDENTIALS", "The request signature we calculated does not match"),
        "proxy": ("DENIED", ""),
        "throttled": None,
    },
    "az": {
        "missing": ("BUCKET_MISSING", "its bucket (or container) 'missing' does not exist"),
        "denied": ("DENIED", "This request is not authorized to perform this operation using this permission"),
        "firewall": ("DENIED", "This request is not authorized to perform this operation"),
        "wrongkey": ("CREDENTIALS", "Server failed to authenticate the request"),
        "expired": ("EXPIRED", ""),
        "expiredtoken": ("EXPIRED", "The token is expired"),
        "skewed": ("CLOCK", ""),
        "throttled": None,
    },
    "gs": {
        "missing": ("BUCKET_MISSING", "its bucket (or container) 'missing' does not exist"),
        "denied": ("DENIED", ""),
        "expired": ("CREDENTIALS", "Invalid Credentials"),
        "throttled": None,
    },
}
#: an endpoint of one's own for Google is asked by gcsfs alone
DRIVERS = [("s3", "obstore"), ("s3", "fsspec"), ("az", "obstore"), ("az", "fsspec"), ("gs", "fsspec")]


def options_of(protocol: str, endpoint: str) -> dict[str, Any]:
    """What reaches a server of a kind."""
    if protocol == "s3":
        return {"key": "me", "secret": SECRET, "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"}}
    if protocol == "az":
        account = f"DefaultEndpointsProtocol=http;AccountName=acc;AccountKey={SECRET}"
        return {"connection_string": f"{account};BlobEndpoint={endpoint}/acc;"}
    return {"endpoint_url": endpoint, "token": "anon", "project": "p"}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, RefusingServer]]:
    with refusing_server(S3) as s3, refusing_server(AZURE) as azure, refusing_server(GCS) as gcs:
        yield {"s3": s3, "az": azure, "gs": gcs}


def assert_told(found: BaseException | None, url: str, reason: str, said: str = "") -> None:
    """It is one sentence, which says where, why, and what to do, and no secret."""
    text = str(found)
    assert text.startswith(f"{url} cannot be used: ")
    assert text.endswith(RefusalReason[reason].value)
    assert said in text
    assert "***" not in text
    for never in (SECRET, "\n", "<Code>", "Traceback"):
        assert never not in text


@pytest.mark.parametrize(
    ("protocol", "driver", "case"),
    [(protocol, driver, case) for protocol, driver in DRIVERS for case in SAID[protocol]],
)
def test_check_reachable_what_store_refuses_is_told(
    servers: dict[str, RefusingServer], protocol: str, driver: str, case: str
) -> None:
    server = servers[protocol]
    server.asked.clear()
    url, options = f"{protocol}://{case}/some/place", {**options_of(protocol, server.endpoint), "driver": driver}

    found = check_reachable(url, options, CheckpointFailures(options), seconds=DEADLINE_SECONDS)

    expected = SAID[protocol][case]
    if expected is None:
        assert found is None
    else:
        assert_told(found, url, *expected)
    # below the place: credentials may be good for `some/place/*` and no more; another region is asked again
    assert any("some%2Fplace%2F" in each or "some/place/" in each for each in server.asked)
    assert len(server.asked) <= (3 if case in ("region", "signed") else 1)


@pytest.mark.parametrize(
    ("case", "reason"),
    [("missing", "BUCKET_MISSING"), ("denied", "DENIED"), ("expired", "CREDENTIALS"), ("throttled", "THROTTLED")],
)
def test_obstore_what_google_refuses_by_xml_is_told(case: str, reason: str) -> None:
    with refusing_server(GCS_XML) as server:
        found = asked_of_google(case, {"base_url": server.endpoint, "skip_signature": True})
    assert reason_of(found) is RefusalReason[reason]
    if case == "denied":
        assert "does not have storage.objects.list access" in str(found)


def asked_of_google(bucket: str, config: dict[str, Any]) -> Exception:
    driver = ObstoreDriver(Buckets("GCSStore", config, {"allow_http": True}), path_of)
    with pytest.raises(OSError) as caught:
        driver.ask(f"{bucket}/some/place")
    return caught.value


# -- the way to it -------------------------------------------------------------------------------------------------

Refused = Callable[[str], BaseException | None]


@pytest.fixture(params=DRIVERS, ids=" by ".join)
def refused(request: pytest.FixtureRequest) -> Refused:
    """Asks `bucket/x` at an endpoint, by a protocol and a driver."""
    protocol, driver = request.param

    def ask(endpoint: str) -> BaseException | None:
        options = {**options_of(protocol, endpoint), "driver": driver}
        found = check_reachable(
            f"{protocol}://bucket/x", options, CheckpointFailures(options), seconds=DEADLINE_SECONDS
        )
        assert str(found).startswith(f"{protocol}://bucket/x cannot be used: ")
        assert SECRET not in str(found)
        assert "\n" not in str(found)
        return found

    return ask


def test_check_reachable_port_that_nothing_listens_on_is_told(refused: Refused) -> None:
    found = str(refused("http://127.0.0.1:9"))
    assert "127.0.0.1:9" in found
    assert found.endswith(RefusalReason.UNREACHABLE.value)


def test_check_reachable_host_that_has_no_address_is_told(refused: Refused) -> None:
    found = str(refused("http://nowhere.invalid"))
    assert "nowhere.invalid" in found
    assert found.endswith(RefusalReason.UNREACHABLE.value)


def test_check_reachable_certificate_that_is_not_trusted_is_told(refused: Refused, tmp_path: Path) -> None:
    with self_signed(tmp_path) as endpoint:
        found = str(refused(endpoint))
    assert found.endswith(RefusalReason.CERTIFICATE.value), found


def test_check_reachable_endpoint_that_speaks_no_tls_is_told(refused: Refused) -> None:
    with refusing_server({"bucket": Refusal(400, "")}) as server:
        found = str(refused(server.endpoint.replace("http:", "https:")))
    assert found.endswith(RefusalReason.UNREACHABLE.value), found


class self_signed:
    """A server with a certificate that no authority has signed."""

    def __init__(self, folder: Path) -> None:
        key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
        subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self._server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return f"https://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
