"""Protocols that begin a URL, and URLs that are none for want of a slash: taken for a path, `s3:/bucket/x` would be a
folder of this machine."""

from __future__ import annotations

import re

#: every name that begins the URL of a store, of samples or of a server
PROTOCOLS = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "sftp", "ssh", "file", "local", "memory", "http", "https", "ftp"}
    | {"hdfs", "webhdfs", "github", "smb"}
)
_ONE_COLON = re.compile(r"([A-Za-z][A-Za-z0-9]*):(?!//|:)/*(.*)", re.DOTALL)


def slash_problem(location: str) -> str | None:
    """Say what is wrong with a URL or path that begins with a protocol and a colon, and not with `://`; None where
    nothing is. `file:/x`, which is a URL to some programs, is a path to others and counts as wrong; a relative folder
    of such a name is written `./s3:/…`."""
    found = _ONE_COLON.match(location)
    if found is None or found[1].lower() not in PROTOCOLS:
        return None
    from trainflow.observability.redaction import redact_text

    protocol, rest = found[1], found[2]
    root = "/" if protocol.lower() in ("file", "local") else ""
    meant = redact_text(f"{protocol}://{root}{rest}")
    return f"'{protocol}:' is not followed by '//'; did you mean '{meant}'? (a folder of that name: './{protocol}:/…')"


def credentials_problem(url: str) -> str | None:
    """Say that the URL of a store has credentials in it, masked: it is shown to people and recorded. None: it has
    none."""
    from trainflow.observability.redaction import redact_text

    masked = redact_text(url)
    if masked == url:
        return None
    return (
        f"the store {masked} has credentials in its URL, which is recorded with every checkpoint: move them to "
        "storage_options, or better to the environment (TRAINFLOW__CHECKPOINTS__STORAGE_OPTIONS)"
    )
