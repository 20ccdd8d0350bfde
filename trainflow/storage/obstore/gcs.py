"""The options of Google Cloud Storage, as they are written for gcsfs, in the words of obstore."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

from trainflow.errors import InputError
from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.fsspec_options import FsspecOptions, OptionNotMapped
from trainflow.storage.obstore.s3 import client_options

_FAST = (
    "project",  # that of a new bucket
    "block_size",
    "consistency",
    "cache_timeout",
    "secure_serialize",
    "check_connection",
    "default_location",
)
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
#: the kinds of credentials that obstore reads from a file; the others are google-auth's
_READ = frozenset({"service_account", "authorized_user"})


def gcs_buckets(options: Mapping[str, Any], environ: Mapping[str, str]) -> Buckets:
    """How buckets are opened. Raises OptionNotMapped for an option that obstore has no word for, and for an endpoint of
    one's own: emulators answer the JSON API alone, and obstore asks by the other one."""
    words = FsspecOptions(options)
    words.skip(*_FAST)
    if words.text("endpoint_url") or environ.get("STORAGE_EMULATOR_HOST"):
        raise OptionNotMapped("endpoint_url")
    for name in ("version_aware", "requester_pays", "session_kwargs"):
        if words.take(name):
            raise OptionNotMapped(name)
    if words.text("access") not in ("", "full_control", "read_write"):
        raise OptionNotMapped("access")
    config, provider = _credentials(words.take("token"), environ)
    timeouts = client_options(None, words.seconds("requests_timeout", "timeout"))
    words.end()
    return Buckets("GCSStore", config, timeouts, provider, deleted_names=1)


def _credentials(token: Any, environ: Mapping[str, str]) -> tuple[dict[str, Any], Callable[[], Any] | None]:
    if token == "anon":
        return {"skip_signature": True}, None
    if isinstance(token, dict):
        if token.get("type") != "service_account":
            raise OptionNotMapped("token")
        return {"service_account_key": json.dumps(token)}, None
    if token in (None, "google_default"):
        return _of_file(_default_file(environ))
    if token == "cloud":
        return {}, None
    if not isinstance(token, str) or token in ("cache", "browser"):
        raise OptionNotMapped("token")
    place = Path(token).expanduser()
    if not place.exists():
        raise InputError(f"the credentials {place} (the option token) are not there")
    return _of_file(place)


def _default_file(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        if not Path(named).exists():
            raise InputError(f"the credentials {named} (GOOGLE_APPLICATION_CREDENTIALS) are not there")
        return Path(named)
    folder = Path(environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud").expanduser()
    place = folder / "application_default_credentials.json"
    return place if place.exists() else None


def _of_file(place: Path | None) -> tuple[dict[str, Any], Callable[[], Any] | None]:
    """The machine's credentials where there is no file."""
    if place is None:
        return {}, None
    try:
        kind = json.loads(place.read_text(encoding="utf-8")).get("type")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"the credentials {place} cannot be read: {error}") from None
    if kind in _READ:
        return {"application_credentials": str(place)}, None
    return {}, _of_google_auth(place)


def _of_google_auth(place: Path) -> Callable[[], Any]:
    """Credentials that another provider of identities, or another account, stands for."""
    try:
        import google.auth
        from google.auth.transport.requests import Request
    except ImportError:
        raise InputError(
            f"the credentials {place} are those of another provider, which google-auth sees to: "
            "pip install 'trainflow[gcs]'"
        ) from None
    known: list[Any] = []

    def fetch() -> dict[str, Any]:
        if not known:
            load: Any = google.auth.load_credentials_from_file
            known.append(load(str(place), scopes=[_SCOPE])[0])
        [credentials] = known
        credentials.refresh(Request())
        expiry = credentials.expiry
        return {
            "token": credentials.token,
            "expires_at": expiry.replace(tzinfo=expiry.tzinfo or UTC).astimezone(UTC) if expiry else None,
        }

    return fetch
