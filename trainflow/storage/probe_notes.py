"""Notes, on this machine, of stores that were found to create exclusively: each is tried once a day, and not by every
chain that begins there.

Only what was found well is noted. Without the notes, which lie in the home, a store is tried again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from trainflow.identifiers import canonical_json
from trainflow.observability.redaction import redact
from trainflow.storage.drivers import endpoint_of, probe
from trainflow.storage.exclusive import replace_whole
from trainflow.storage.store import Store

#: how long a note holds
AGE = timedelta(days=1)
#: variables by which an account or an endpoint is chosen without an option
_ENVIRONMENT = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN"),
    *("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_CLIENT_ID"),
)


class _Note(msgspec.Struct, frozen=True):
    at: datetime


def identity_of(url: str, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> str:
    """Which store it is, and who asks: a digest of the URL, the endpoint and the account. No secret goes into it."""
    account = {name: environ[name] for name in _ENVIRONMENT if name in environ}
    facts = [url, endpoint_of(options), redact(dict(options)), account]
    return hashlib.sha256(canonical_json(facts)).hexdigest()[:40]


def probe_once_a_day(store: Store, identity: str, notes: Path, now: datetime) -> None:
    """Try a store in the network, unless a note in the folder `notes` is of today; one on this machine each time: that
    costs nothing. Raises as `probe`."""
    note = notes / f"{identity}.json"
    if store.remote and _is_recent(note, now):
        return
    probe(store)
    if store.remote:
        with suppress(OSError):  # then the next chain tries it again
            notes.mkdir(parents=True, exist_ok=True)
            replace_whole(note, msgspec.json.encode(_Note(now)))


def _is_recent(note: Path, now: datetime) -> bool:
    try:
        at = msgspec.json.decode(note.read_bytes(), type=_Note).at
    except (OSError, msgspec.MsgspecError):
        return False
    return at.tzinfo is not None and timedelta(0) <= now - at < AGE
