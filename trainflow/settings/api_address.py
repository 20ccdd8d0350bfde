"""Where the API server listens."""

from __future__ import annotations

import ipaddress
import logging
import socket
from urllib.parse import urlsplit

import msgspec

from trainflow.errors import InputError, SettingsError
from trainflow.observability.processes import hostname
from trainflow.settings.executors import executor_entries
from trainflow.settings.model import ApiSettings, Settings

log = logging.getLogger(__name__)

#: connections that wait to be answered: also while a server that died is started again
_BACKLOG = 2048


def check_address(api: ApiSettings) -> None:
    """Raise SettingsError for an address that others reach, and that asks for no proof of who they are."""
    if api.token is not None or is_loopback(api.host):
        return
    raise SettingsError(
        f"the API server would listen on {api.host}, which other hosts reach, and api.token is not set. Set the "
        "environment variable TRAINFLOW__API__TOKEN to a secret (openssl rand -hex 24 makes one), or listen on "
        "127.0.0.1"
    )


def asks_for_tokens(api: ApiSettings) -> bool:
    """Whether people and programs have to show who they are: wherever others than users of this host may reach the
    server, be it through a proxy."""
    elsewhere = api.url is not None and not is_loopback(urlsplit(api.url).hostname or "")
    return api.token is not None or not is_loopback(api.host) or elsewhere or bool(api.trusted_proxies)


def is_loopback(host: str) -> bool:
    """Whether no other host reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown_address(api: ApiSettings, machine: str) -> str:
    """Where the API server is reached, as a person opens it: an address that stands for all of this machine's is
    followed by one with its name, `machine`, which other hosts reach."""
    if api.url is not None or api.host not in ("0.0.0.0", "::"):
        return api.address
    here = msgspec.structs.replace(api, host="localhost").address
    return f"{here}, from other hosts {msgspec.structs.replace(api, host=machine).address} (listens on {api.host})"


def listen(api: ApiSettings) -> socket.socket:
    """A socket at the address of the settings. Raises SettingsError for one that may not be, InputError where it cannot
    be had."""
    check_address(api)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            api.host, api.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"api.host: '{api.host}' is no address of this host: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {api.host} port {api.port}: {error.strerror}; set api.port, or stop what listens there"
        ) from None
    return listener


def try_to_listen(api: ApiSettings) -> tuple[socket.socket | None, str]:
    """A socket, and where it is reached; or None, and why there is none, which keeps nothing on this host from going
    on. Raises SettingsError for an address that may not be."""
    if not api.enabled:
        return None, "not started: api.enabled is false"
    try:
        return listen(api), shown_address(api, hostname())
    except SettingsError:
        raise
    except InputError as error:
        return None, f"not started: {error}"


def listen_for_attempts(settings: Settings) -> socket.socket | None:
    """Where the API server answers, when there are executors that run attempts on other hosts: these reach nothing
    else. None where another process listens there: it may be one."""
    remote = [entry.name for entry in executor_entries(settings).values() if not entry.is_local]
    if not remote:
        return None
    listener, said = try_to_listen(settings.api)
    if listener is not None or not settings.api.enabled:
        log.info("API server: %s", said)
        return listener
    log.warning(
        "API server: %s. Attempts of %s are told %s: they wait unless what answers there is an API server of this "
        "project's database",
        said,
        ", ".join(f"'{name}'" for name in remote),
        settings.api.address,
    )
    return None
