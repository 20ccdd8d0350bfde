"""Make and revoke tokens of the API server. A person who can write the metadata database may make any."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection

from trainflow.metadata.queries import event_queries, token_queries
from trainflow.metadata.queries.event_queries import ApiEvent
from trainflow.workspace.workspace import Workspace


class TokenMade(msgspec.Struct, frozen=True, kw_only=True):
    """A token. `token` is shown this once: the database keeps a digest."""

    name: str
    role: str
    expires_at: datetime | None
    token: str


class TokenRevoked(msgspec.Struct, frozen=True):
    """A token that is worth nothing any more, since `revoked_at`."""

    name: str
    role: str
    revoked_at: datetime


def create_token(
    workspace: Workspace, name: str, role: str, *, who: str, now: datetime, lifetime: timedelta | None = None
) -> TokenMade:
    """Make a token for a person or a program. Raises InputError for a name that is taken, or a role that there is
    not."""
    expires_at = None if lifetime is None else now + lifetime
    secret = token_queries.new_secret()

    def work(connection: Connection) -> None:
        token_queries.create(connection, name, role, secret, by=who, now=now, expires_at=expires_at)
        event_queries.add(connection, _event("create_token", who, now, name, role))

    workspace.database.write(work)
    return TokenMade(name=name, role=role, expires_at=expires_at, token=secret)


def revoke_token(workspace: Workspace, name: str, *, who: str, now: datetime) -> TokenRevoked:
    """Have a token be worth nothing: a server that has seen it lately notices within seconds. Raises NotFound."""

    def work(connection: Connection) -> TokenRevoked:
        row = token_queries.revoke(connection, name, now)
        event_queries.add(connection, _event("revoke_token", who, now, name, row.role))
        return TokenRevoked(row.name, row.role, row.revoked_at or now)

    return workspace.database.write(work)


def _event(event: str, who: str, now: datetime, name: str, role: str) -> ApiEvent:
    return ApiEvent(at=now, event=event, owner=who, address="command line", extra={"token": name, "role": role})
