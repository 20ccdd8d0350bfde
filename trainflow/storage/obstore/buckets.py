"""How the buckets of one account are opened, and what their service does in one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from trainflow.storage.obstore.errors import StoreRefusal

#: hosts of the services themselves
_SERVICES = (".amazonaws.com", ".blob.core.windows.net", "storage.googleapis.com")
_SCHEMES = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}


class Buckets(NamedTuple):
    """How the buckets of one account are opened, in the words of obstore. `kind` names its class of store."""

    kind: str
    config: dict[str, Any]
    client: dict[str, Any]
    credentials: Callable[[], Any] | None = None
    tries: int | None = None
    #: the configuration of one bucket, on top
    of_bucket: Callable[[str], dict[str, Any]] = lambda bucket: {}
    #: the service begins a listing anywhere
    starts_after: bool = True
    #: an upload in parts begins with a request of its own
    begins_uploads: bool = True
    #: the service gives the end of a file without being told how long it is
    gives_ends: bool = True
    #: how many names a listing shows, and a deletion takes, in one request
    page_names: int = 1000
    deleted_names: int = 1000
    #: a bucket that is not there may be in another region
    region_of: Callable[[str, StoreRefusal], str] | None = None

    def label(self, bucket: str) -> str:
        """Which bucket that is, for counts of its requests: by the scheme of the service, or its own endpoint."""
        endpoint = str(self.config.get("endpoint") or "").rstrip("/")
        own = endpoint and not any(host in endpoint for host in _SERVICES)
        return f"{endpoint}/{bucket}" if own else f"{_SCHEMES[self.kind]}://{bucket}"

    def deletes(self, names: int) -> int:
        """How many requests the deletion of so many files takes."""
        return names if self.config.get("disable_bulk_delete") else -(-names // self.deleted_names)
