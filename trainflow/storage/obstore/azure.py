"""The options of Azure Blob Storage, as they are written for adlfs, in the words of obstore."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from trainflow.errors import InputError
from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.fsspec_options import FsspecOptions, OptionNotMapped
from trainflow.storage.obstore.s3 import client_options

_FAST = (
    "blocksize",
    "default_fill_cache",
    "default_cache_type",
    "max_concurrency",
    "assume_container_exists",
    "socket_timeout",
)
_SCOPE = "https://storage.azure.com/.default"
#: the account that every emulator has
_EMULATOR = {
    "AccountName": "devstoreaccount1",
    "AccountKey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "BlobEndpoint": "http://127.0.0.1:10000/devstoreaccount1",
}
_FALSE = ("", "0", "f", "false")


def azure_buckets(url: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> Buckets:
    """How containers are opened. Raises OptionNotMapped for an option that obstore has no word for, InputError where no
    account is named."""
    words = FsspecOptions(options)
    words.skip(*_FAST)
    if words.take("version_aware"):
        raise OptionNotMapped("version_aware")
    if words.text("location_mode") not in ("", "primary"):
        raise OptionNotMapped("location_mode")
    connection = _connection(words.text("connection_string") or environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    found, endpoint = _account(url, words, connection, environ)
    keys, provider = _keys(words, connection, environ)
    timeouts = client_options(words.seconds("connection_timeout"), words.seconds("read_timeout", "timeout"))
    if endpoint.startswith("http://"):
        timeouts["allow_http"] = True
    words.end()
    # a listing begins where it does, and the end of a file is not given without its size
    return Buckets(
        "AzureStore",
        {**found, **keys},
        timeouts,
        provider,
        starts_after=False,
        begins_uploads=False,
        gives_ends=False,
        page_names=5000,
        deleted_names=256,
    )


def _connection(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    found = {name.strip(): value.strip() for name, sign, value in pairs if sign}
    if found.get("UseDevelopmentStorage", "").lower() == "true":
        return {**_EMULATOR, **found}
    return found


def _account(
    url: str, words: FsspecOptions, connection: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[dict[str, Any], str]:
    host = re.search(r"@([^/]+)", url)
    of_url = re.match(r"(.+)\.(?:dfs|blob)\.core\.windows\.net$", host[1]) if host else None
    given = words.text("account_name")
    name = (of_url[1] if of_url else "") or given or connection.get("AccountName") or ""
    name = name or environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    endpoint = connection.get("BlobEndpoint", "")
    if not endpoint and connection.get("EndpointSuffix"):
        scheme = connection.get("DefaultEndpointsProtocol", "https")
        endpoint = f"{scheme}://{name}.blob.{connection['EndpointSuffix']}"
    account_host = words.text("account_host")
    if account_host:
        endpoint = f"https://{account_host}"
    if not name and endpoint:
        name = re.sub(r"^\w+://", "", endpoint).split(".", 1)[0]
    if not name:
        raise InputError(
            f"{url} names no storage account: write account_name (or connection_string) in the storage options, or set "
            "AZURE_STORAGE_ACCOUNT_NAME"
        )
    return {"account_name": name, **({"endpoint": endpoint.rstrip("/")} if endpoint else {})}, endpoint


def _keys(
    words: FsspecOptions, connection: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[dict[str, Any], Callable[[], Any] | None]:
    """Credentials in the order of adlfs."""
    credential = words.take("credential")
    if credential is not None and not isinstance(credential, str):
        raise OptionNotMapped("credential")
    key = words.text("account_key") or environ.get("AZURE_STORAGE_ACCOUNT_KEY", "")
    sas = words.text("sas_token") or environ.get("AZURE_STORAGE_SAS_TOKEN", "")
    anon, of_environment = words.take("anon"), environ.get("AZURE_STORAGE_ANON", "").lower() not in _FALSE
    names = ("tenant_id", "client_id", "client_secret")
    principal = {name: words.text(name) or environ.get(f"AZURE_STORAGE_{name.upper()}", "") for name in names}
    if connection:
        key = connection.get("AccountKey", "") or ("" if connection.get("SharedAccessSignature") else key)
        sas = connection.get("SharedAccessSignature", "") or sas
        credential = None
    if credential:
        # a SAS or a key, both are texts
        return ({"sas_key": credential.lstrip("?")} if "sig=" in credential else {"account_key": credential}), None
    if key:
        return {"account_key": key}, None
    if sas:
        return {"sas_key": sas.lstrip("?")}, None
    if principal["client_id"]:
        return {name: value for name, value in principal.items() if value}, None
    if of_environment if anon is None else anon:
        return {"skip_signature": True}, None
    return {}, _of_the_environment(environ)


def _of_the_environment(environ: Mapping[str, str]) -> Callable[[], Any] | None:
    """What fetches credentials; None where obstore does: of a service principal, a workload, or the machine."""
    if environ.get("AZURE_FEDERATED_TOKEN_FILE") or environ.get("AZURE_CLIENT_SECRET"):
        return None
    try:  # here, and not when it is asked: a process that is forked after this does not import it
        from azure.identity import DefaultAzureCredential
    except ImportError:
        return None
    known: list[Any] = []

    def fetch() -> dict[str, Any]:
        if not known:
            known.append(DefaultAzureCredential())
        token = known[0].get_token(_SCOPE)
        return {"token": token.token, "expires_at": datetime.fromtimestamp(token.expires_on, UTC)}

    return fetch
