"""Tokens of the API server: which there are, never what they are."""

from __future__ import annotations

from datetime import datetime

import msgspec

from trainflow.metadata.queries import token_queries
from trainflow.workspace.workspace import Workspace


class TokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A token. `state`: valid, revoked or expired."""

    name: str
    role: str
    state: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


def list_tokens(workspace: Workspace, now: datetime) -> list[TokenLine]:
    """Every token that was ever made, by name."""
    with workspace.database.reading() as connection:
        rows = token_queries.listing(connection)
    return [
        TokenLine(
            name=row.name,
            role=row.role,
            state=_state(row.revoked_at, row.expires_at, now),
            created_at=row.created_at,
            created_by=row.created_by,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )
        for row in rows
    ]


def _state(revoked_at: datetime | None, expires_at: datetime | None, now: datetime) -> str:
    if revoked_at is not None:
        return "revoked"
    return "expired" if expires_at is not None and expires_at <= now else "valid"
