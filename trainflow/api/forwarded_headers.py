"""Where a request comes from, and where its client thinks that it went, when a proxy stands between."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import Scope


class RequestOrigin(NamedTuple):
    """A request as its client sent it. `address`: of the client; `host`: as the client named this server."""

    address: str
    scheme: str
    host: str


class TrustedProxies:
    """Proxies whose word is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(each) for each in networks]

    def origin_of(self, scope: Scope) -> RequestOrigin:
        """Where a request comes from: what a proxy says, if it is one of these; else the connection."""
        headers = Headers(scope=scope)
        address = scope["client"][0] if scope.get("client") else "unknown"
        found = RequestOrigin(address, scope["scheme"], headers.get("host", ""))
        if not self.includes(address):
            return found
        return RequestOrigin(
            self._first_stranger(headers.get("x-forwarded-for", ""), address),
            headers.get("x-forwarded-proto", found.scheme).partition(",")[0].strip(),
            headers.get("x-forwarded-host", found.host).partition(",")[0].strip(),
        )

    def _first_stranger(self, forwarded: str, address: str) -> str:
        """The nearest address that is no proxy of ours: what stands before it in the list may be invented."""
        for each in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
            if not self.includes(each):
                return each[:64]
            address = each
        return address

    def includes(self, address: str) -> bool:
        """Whether an address is one of theirs."""
        if not self._networks:
            return False
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def within(scope: Scope, root_path: str) -> Scope:
    """The request below the prefix that a proxy puts before every path, whether it was taken away or not."""
    path = scope["path"]
    if not root_path:
        return scope
    full = path if path == root_path or path.startswith(f"{root_path}/") else root_path + path
    return {**scope, "path": full, "root_path": root_path}
