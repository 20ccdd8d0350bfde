"""`[openlineage]` in OpenLineage's own names: the keys of a transport, and the environment variables of its clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from trainflow.identifiers import did_you_mean
from trainflow.settings.units import Seconds

DEFAULT_ENDPOINT = "api/v1/lineage"
DEFAULT_TIMEOUT_SECONDS = 5.0
_KEYS = {
    "http": ("type", "url", "endpoint", "timeout", "auth", "compression", "custom_headers"),
    "file": ("type", "log_file_path", "append"),
}
_VARIABLE = "OPENLINEAGE__TRANSPORT__"


class OpenLineageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[openlineage]`: events about runs of chains, for a server of OpenLineage."""

    #: where events go, in the words of OpenLineage's clients: `type = "http"` with `url`, `endpoint`, `timeout`,
    #: `auth`, `compression`, `custom_headers`; or `type = "file"` with `log_file_path`, `append`. Without it:
    #: OPENLINEAGE_URL, _ENDPOINT and _API_KEY, or OPENLINEAGE__TRANSPORT__…; without these nothing is told
    transport: dict[str, Any] = msgspec.field(default_factory=dict)
    #: the namespace of the jobs; without it OPENLINEAGE_NAMESPACE
    namespace: str = "default"
    #: tell nothing, whatever else is set; OPENLINEAGE_DISABLED does the same
    disabled: bool = False
    #: how long a `start` that has finished waits for the last events to be taken
    drain_seconds: Seconds = 10.0

    def __post_init__(self) -> None:
        if self.transport and (problem := transport_problem(self.transport)) is not None:
            raise ValueError(f"transport: {problem}")

    @property
    def is_on(self) -> bool:
        """Whether events are told."""
        return bool(self.transport) and not self.disabled


def transport_problem(table: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a transport; None: it can be used."""
    kind = table.get("type")
    if kind not in _KEYS:
        return f"type '{kind}' is none of {', '.join(_KEYS)}{did_you_mean(str(kind), list(_KEYS))}"
    for key in table:
        if key not in _KEYS[kind]:
            return f"a transport of type '{kind}' has no '{key}'{did_you_mean(key, _KEYS[kind], 'known')}"
    return _file_problem(table) if kind == "file" else _http_problem(table)


def _file_problem(table: Mapping[str, Any]) -> str | None:
    path = table.get("log_file_path")
    if not isinstance(path, str) or not path:
        return "a transport of type 'file' needs log_file_path"
    return f"log_file_path: '{path}' is no path of this machine" if "://" in path else None


def _http_problem(table: Mapping[str, Any]) -> str | None:
    url, auth = table.get("url"), table.get("auth", {})
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return "url: a transport of type 'http' needs one that begins with http:// or https://"
    if not isinstance(auth, Mapping) or (auth and (auth.get("type") != "api_key" or api_key_of(table) is None)):
        return 'auth: only { type = "api_key", apiKey = "…" } is known'
    if table.get("compression") not in (None, "gzip"):
        return f"compression: '{table['compression']}' is not gzip"
    timeout = table.get("timeout", DEFAULT_TIMEOUT_SECONDS)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
        return f"timeout: {timeout!r} is no number of seconds"
    headers = table.get("custom_headers", {})
    if not isinstance(headers, Mapping) or not all(isinstance(each, str) for each in headers.values()):
        return "custom_headers: expected a table of texts"
    return None


def api_key_of(table: Mapping[str, Any]) -> str | None:
    """The key that is shown, by any of the names that clients take."""
    auth = table.get("auth", {})
    found = next((auth[name] for name in ("apiKey", "apikey", "api_key") if auth.get(name)), None)
    return None if found is None else str(found)


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the variables of OpenLineage's clients say, as a table `[openlineage]`. Those that begin with
    OPENLINEAGE__TRANSPORT__ come before OPENLINEAGE_URL, as in the clients."""
    found: dict[str, Any] = {}
    if environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        found["disabled"] = True
    if environ.get("OPENLINEAGE_NAMESPACE"):
        found["namespace"] = environ["OPENLINEAGE_NAMESPACE"]
    transport: dict[str, Any] = {}
    for name in sorted(name for name in environ if name.startswith(_VARIABLE)):
        _set(transport, name[len(_VARIABLE) :].lower().split("__"), environ[name])
    if not transport and environ.get("OPENLINEAGE_URL"):
        transport = {"type": "http", "url": environ["OPENLINEAGE_URL"]}
        if environ.get("OPENLINEAGE_ENDPOINT"):
            transport["endpoint"] = environ["OPENLINEAGE_ENDPOINT"]
        if environ.get("OPENLINEAGE_API_KEY"):
            transport["auth"] = {"type": "api_key", "apiKey": environ["OPENLINEAGE_API_KEY"]}
    return {**found, "transport": transport} if transport else found


def _set(table: dict[str, Any], keys: list[str], text: str) -> None:
    for key in keys[:-1]:
        if not isinstance(table.get(key), dict):
            table[key] = {}
        table = table[key]
    try:
        table[keys[-1]] = json.loads(text)
    except json.JSONDecodeError:
        table[keys[-1]] = text
