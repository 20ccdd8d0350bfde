"""Google Cloud Storage as obstore asks it, by the XML API, which no emulator of it speaks: it is that of S3 but for the
names of two headers, so a server of S3 answers behind a translation of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.http_servers import serving_application
from tests.support.local_object_stores import LocalS3, moto_application
from trainflow.errors import StoreMissing
from trainflow.storage.object_store import ObjectStore
from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.driver import ObstoreDriver
from trainflow.storage.obstore.urls import path_of
from trainflow.storage.store import Store
from trainflow.testing.store_contract import StoreContract

_SIGNED = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"


class Translated:
    """Google's condition on a generation as S3's on a tag, its bearer token as a signature. `asked`: each request."""

    def __init__(self) -> None:
        self._application = moto_application()
        self.asked: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}")
        if environ.get("HTTP_AUTHORIZATION", "").startswith("Bearer"):
            environ["HTTP_AUTHORIZATION"] = _SIGNED
        if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
        # it writes more characters as numbers than S3 does
        query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
        environ["RAW_URI"] = environ["REQUEST_URI"] = quote(environ["PATH_INFO"].encode("latin-1")) + query
        return self._application(environ, start_response)


@pytest.fixture(scope="module")
def translated() -> Iterator[tuple[str, Translated]]:
    application = Translated()
    with serving_application(application) as port:
        yield f"http://127.0.0.1:{port}", application


def opened(endpoint: str, bucket: str) -> Store:
    buckets = Buckets("GCSStore", {"base_url": endpoint, "bearer_token": "t"}, {"allow_http": True})
    return ObjectStore(lambda: (ObstoreDriver(buckets, path_of), f"{bucket}/some"), url=f"gs://{bucket}/some")


class TestGcsByXml(StoreContract):
    @pytest.fixture
    def store(self, translated: tuple[str, Translated]) -> Store:
        return opened(translated[0], LocalS3(translated[0]).make_bucket())

    def test_listing_begins_where_it_is_told(self, store: Store, translated: tuple[str, Translated]) -> None:
        for path in ("a/1", "b/2", "b/3"):
            store.create_exclusive(path, b"")
        translated[1].asked.clear()

        assert [file.path for file in store.files_after("", "b/2")] == ["b/3"]
        [asked] = translated[1].asked
        assert "start-after=some%2Fb%2F2" in asked or "start-after=some/b/2" in asked

    def test_bucket_that_is_missing_is_named(self, translated: tuple[str, Translated]) -> None:
        store = opened(translated[0], "bucket-nowhere")
        for ask in (lambda: store.files(""), lambda: store.create_exclusive("a", b"")):
            with pytest.raises(StoreMissing, match="'bucket-nowhere' does not exist"):
                ask()
