"""Who asks: tokens of attempts, remembered for as long as they are used."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from trainflow.messages.workload import AttemptKey
from trainflow.metadata import attempt_credentials
from trainflow.metadata.database import Database

_MOST = 20_000
_SCHEME = "bearer "


def bearer(header: str | None) -> str | None:
    """The secret of an `Authorization` header; None where it holds none."""
    if header is None or header[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return header[len(_SCHEME) :].strip() or None


class AttemptTokens:
    """The attempts that tokens stand for. That never changes; whether an attempt is still waited for is asked of the
    database with each request. Used by one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: by digest: not even in memory is a token kept longer than a request
        self._known: OrderedDict[bytes, AttemptKey] = OrderedDict()

    def remembered(self, token: str) -> AttemptKey | None:
        """The attempt of a token that was seen before."""
        digest = _digest(token)
        key = self._known.get(digest)
        if key is not None:
            self._known.move_to_end(digest)
        return key

    def look_up(self, token: str) -> AttemptKey | None:
        """Ask the database for the attempt of a token. Fit for any thread."""
        return self._database.read(lambda connection: attempt_credentials.holder(connection, token))

    def remember(self, token: str, key: AttemptKey) -> None:
        """Keep what was looked up."""
        self._known[_digest(token)] = key
        while len(self._known) > _MOST:
            self._known.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
