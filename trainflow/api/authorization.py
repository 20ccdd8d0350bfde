"""What a caller may do: each request needs a role, and each token has one."""

from __future__ import annotations

from trainflow.api.authentication import Caller
from trainflow.api.rest.problems import RequestRefused
from trainflow.metadata.queries.token_queries import Role


def require_role(caller: Caller, role: Role) -> None:
    """Raise RequestRefused (403) for a caller who has neither the role nor a higher one."""
    if caller.role.rank < role.rank:
        raise RequestRefused(
            403,
            "Forbidden",
            f"{caller.name} has the role {caller.role}, and this needs {role}",
            f"use a token with the role {role}: 'trainflow tokens create NAME --role {role}'",
        )
