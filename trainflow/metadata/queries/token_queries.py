"""Tokens of the API server: made once, shown once, kept as digests."""

from __future__ import annotations

import secrets
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from trainflow.bounds import check_text
from trainflow.errors import InputError, NotFound
from trainflow.identifiers import did_you_mean
from trainflow.metadata.api_models import ApiTokenTable
from trainflow.metadata.attempt_credentials import digest

TOKEN = ApiTokenTable.table
#: so that scanners for secrets find one in a repository
PREFIX = "tfu_"
_RANDOM_BYTES = 32
#: what the event log calls who shows `api.token`, and who asks where no token is asked for
OF_SETTINGS, LOCAL = "api.token", "local"


class Role(StrEnum):
    """What a token may do; each may do what the one before may."""

    #: look at everything
    VIEWER = "viewer"
    #: trigger, clear, cancel, pause, and decide about chains
    OPERATOR = "operator"
    #: delete, prune, stop the engine
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """A number that is higher for a role that may do more."""
        return list(Role).index(self)


def new_secret() -> str:
    """A token that was never made before."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def create(
    connection: Connection,
    name: str,
    role: str,
    secret: str,
    *,
    by: str,
    now: datetime,
    expires_at: datetime | None = None,
) -> None:
    """Keep a token's digest. Raises InputError for a name that is taken or means another caller, or a role that there
    is not."""
    check_text(name, "token")
    if name in (OF_SETTINGS, LOCAL):
        raise InputError(f"'{name}' is in the event log for callers without a token of their own: give it another name")
    if role not in list(Role):
        raise InputError(f"role '{role}': no role is called so{did_you_mean(role, list(Role))}")
    before = next((row for row in listing(connection) if row.name == name), None)
    if before is not None and before.token_hash == digest(secret):
        return  # by the try before, whose commit was not heard of
    if before is not None:
        raise InputError(f"a token is called '{name}' already, or was: give it another name")
    if expires_at is not None and expires_at <= now:
        raise InputError("the token would have expired before it is made")
    values = {"name": name, "role": role, "token_hash": digest(secret), "created_at": now, "created_by": by}
    connection.execute(insert(TOKEN).values(**values, expires_at=expires_at))


def listing(connection: Connection) -> list[Row[Any]]:
    """Every token that was ever made, by name."""
    return list(connection.execute(select(TOKEN).order_by(TOKEN.c.name)))


def revoke(connection: Connection, name: str, now: datetime) -> Row[Any]:
    """Have a token be worth nothing from now on; once more changes nothing. Raises NotFound."""
    rows = {row.name: row for row in listing(connection)}
    if name not in rows:
        raise NotFound(f"no token is called '{name}'{did_you_mean(name, list(rows))}")
    connection.execute(update(TOKEN).where(TOKEN.c.name == name, TOKEN.c.revoked_at.is_(None)).values(revoked_at=now))
    return rows[name]


def holder(connection: Connection, secret: str, now: datetime) -> Row[Any] | None:
    """(name, role) of a token that counts now."""
    row: Any = connection.execute(_HOLDER, {"hash": digest(secret)}).one_or_none()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    found: Row[Any] = row
    return found


_HOLDER = select(TOKEN).where(TOKEN.c.token_hash == bindparam("hash"))
