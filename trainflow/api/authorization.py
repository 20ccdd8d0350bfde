"""Who asks: a name, what it may do, and from where."""

from __future__ import annotations

from typing import NamedTuple

from trainflow.metadata.queries.token_queries import Role


class Caller(NamedTuple):
    """Author of a request. `name`: of its token; `address`: where it comes from, as far as that can be believed."""

    name: str
    role: Role
    address: str

    def may(self, role: Role) -> bool:
        """Whether it has a role, or a higher one."""
        return self.role.rank >= role.rank


__all__ = ["Caller", "Role"]
