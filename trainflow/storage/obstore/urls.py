"""A URL and its options, in the words of obstore."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainflow.storage.obstore.azure import azure_buckets
from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.gcs import gcs_buckets
from trainflow.storage.obstore.s3 import s3_buckets

_PARTS = re.compile(r"(\w+)://([^/?#]*)/?(.*)", re.DOTALL)
_AZURE = ("az", "abfs", "abfss")


def buckets_of(
    url: str, options: Mapping[str, Any], environ: Mapping[str, str], quick_seconds: float | None = None
) -> Buckets:
    """How the buckets of a URL are opened. Raises OptionNotMapped and InputError."""
    protocol = url.partition("://")[0].lower()
    if protocol in _AZURE:
        found = azure_buckets(url, options, environ)
    elif protocol in ("gs", "gcs"):
        found = gcs_buckets(options, environ)
    else:
        found = s3_buckets(options, environ)
    if quick_seconds is None:
        return found
    milliseconds = f"{max(int(quick_seconds * 1000), 1)}ms"
    return found._replace(client={**found.client, "connect_timeout": milliseconds, "read_timeout": milliseconds})


def path_of(location: str) -> str:
    """`bucket/key` of a location; of `abfss://container@account/key` the container is the bucket."""
    found = _PARTS.match(location)
    if found is None:
        return location.strip("/")
    return f"{found[2].split('@', 1)[0]}/{found[3]}".rstrip("/")
