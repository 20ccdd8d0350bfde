"""An account at a service, by the options that are written for fsspec: these are taken one by one, what is left over is
what obstore has no word for; and how its buckets are opened, and what their service does in one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trainflow.storage.obstore.answers import StoreRefusal

#: of every file system of fsspec: how it keeps listings and itself, which obstore does not
OPTIONS_OF_FSSPEC = frozenset(
    {"use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "asynchronous", "driver"}
)


class OptionNotMapped(Exception):
    """An option that obstore has no word for. The text names it, without its value."""


class Words:
    """Options, of which `take` takes one. `where`: the option that these are in."""

    def __init__(self, options: Mapping[str, Any] | None, where: str = "") -> None:
        self._left = dict(options or {})
        self._where = where
        if not where:
            self.skip(*OPTIONS_OF_FSSPEC)

    def take(self, *names: str) -> Any:
        """The value of the first of these options that is given; None. All of them count as taken."""
        values = [self._left.pop(name, None) for name in names]
        return next((value for value in values if value is not None), None)

    def text(self, *names: str) -> str:
        """The same, of an option that is a text. Raises OptionNotMapped for anything else."""
        found = self.take(*names)
        if found is not None and not isinstance(found, str):
            raise OptionNotMapped(f"{self._where}{names[0]}")
        return found or ""

    def seconds(self, *names: str) -> float | None:
        """The same, of a duration in seconds."""
        found = self.take(*names)
        if found is not None and not isinstance(found, int | float):
            raise OptionNotMapped(f"{self._where}{names[0]}")
        return found

    def inner(self, name: str) -> Words:
        """The options inside of one."""
        found = self._left.pop(name, None)
        if found is not None and not isinstance(found, Mapping):
            raise OptionNotMapped(f"{self._where}{name}")
        return Words(found, f"{self._where}{name}.")

    def skip(self, *names: str) -> None:
        """Take options that only say how fast fsspec is."""
        for name in names:
            self._left.pop(name, None)

    def end(self) -> None:
        """Raise OptionNotMapped for what was not taken."""
        for name, value in self._left.items():
            if value is not None:
                raise OptionNotMapped(f"{self._where}{name}")


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
