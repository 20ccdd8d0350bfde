"""The options of S3, as they are written for s3fs, in the words of obstore."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainflow.errors import InputError
from trainflow.storage.obstore.aws_profiles import Profile, credentials
from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.errors import StoreRefusal
from trainflow.storage.obstore.fsspec_options import FsspecOptions, OptionNotMapped

CONNECT_SECONDS, READ_SECONDS = 5.0, 60.0
#: the longest that one request may take: a part of a large file on a slow line
REQUEST_SECONDS = 900.0
_REGION_SECONDS = 5.0
_FAST = (
    "default_block_size",
    "default_fill_cache",
    "default_cache_type",
    "cache_regions",
    "max_concurrency",
    "fixed_upload_size",
)
#: services that answer S3 and delete one file at a time
_SINGLE_DELETES = ("aliyuncs.com", "storage.googleapis.com")


def s3_buckets(options: Mapping[str, Any], environ: Mapping[str, str]) -> Buckets:
    """How buckets are opened. Raises OptionNotMapped for an option that obstore has no word for, InputError for a
    profile or a file that is not there."""
    words = FsspecOptions(options)
    words.skip(*_FAST)
    client, config = words.inner("client_kwargs"), words.inner("config_kwargs")
    if words.take("version_aware"):
        raise OptionNotMapped("version_aware")
    profile_option = words.text("profile")
    profile = Profile(profile_option or None, environ)
    values = profile.values()
    endpoint = _endpoint(words, client, profile, environ)
    found: dict[str, Any] = {}
    found |= _encryption(words)
    style = _style(config, values)
    region = client.text("region_name") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    found["region"] = region or values.get("region") or "us-east-1"
    if endpoint:
        found["endpoint"] = endpoint
        if any(host in endpoint for host in _SINGLE_DELETES):
            found["disable_bulk_delete"] = True
    if words.take("requester_pays"):
        found["request_payer"] = True
    keys, provider = _keys(words, client, profile, environ, given=bool(profile_option))
    found |= keys
    if _unsigned(config):
        found["skip_signature"] = True
    client_options, tries = _client(client, config, endpoint, values, environ)
    for each in (words, client, config):
        each.end()
    return Buckets(
        "S3Store",
        found,
        client_options,
        provider,
        tries=tries,
        of_bucket=lambda bucket: _host(bucket, endpoint, style),
        region_of=lambda bucket, error: _region_of(bucket, error, endpoint),
    )


def _endpoint(words: FsspecOptions, client: FsspecOptions, profile: Profile, environ: Mapping[str, str]) -> str:
    given = words.text("endpoint_url"), client.text("endpoint_url")
    secure = words.take("use_ssl")
    inner = client.take("use_ssl")
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        known = ""
    else:
        known = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or profile.endpoint()
    endpoint = given[0] or given[1] or known
    if not endpoint and (secure is False or inner is False):
        raise OptionNotMapped("use_ssl")
    return endpoint.rstrip("/")


def _style(config: FsspecOptions, values: Mapping[str, str]) -> str:
    inner = config.inner("s3")
    style = inner.text("addressing_style")
    # how a body is signed; all of it is, here
    inner.skip("payload_signing_enabled", "us_east_1_regional_endpoint")
    inner.end()
    return style or "auto"


def _host(bucket: str, endpoint: str, style: str) -> dict[str, Any]:
    """Address of a bucket, by the name of the host or by the path: a name with dots is in no certificate."""
    virtual = style == "virtual" or (style == "auto" and not endpoint and "." not in bucket)
    if not virtual:
        return {"virtual_hosted_style_request": False}
    found: dict[str, Any] = {"virtual_hosted_style_request": True}
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        found["endpoint"] = endpoint if host.startswith(f"{bucket}.") else f"{scheme}://{bucket}.{host}"
    return found


def _keys(
    words: FsspecOptions, client: FsspecOptions, profile: Profile, environ: Mapping[str, str], *, given: bool
) -> tuple[dict[str, Any], Any]:
    """Credentials that are written, or what fetches them; neither where the environment or the machine has them."""
    key = words.text("key", "username") or client.text("aws_access_key_id")
    secret = words.text("secret", "password") or client.text("aws_secret_access_key")
    token = words.text("token") or client.text("aws_session_token")
    if words.take("anon"):
        return {"skip_signature": True}, None
    if key and secret:
        # a session token of the environment is of other keys
        return {}, lambda: {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token or None,
            "expires_at": None,
        }
    if key or secret or token:
        raise OptionNotMapped("key" if key else "secret" if secret else "token")
    return {}, credentials(profile, environ, given=given)


def _encryption(words: FsspecOptions) -> dict[str, Any]:
    given = words.inner("s3_additional_kwargs")
    found = {
        "server_side_encryption": given.text("ServerSideEncryption"),
        "sse_kms_key_id": given.text("SSEKMSKeyId"),
        "sse_bucket_key_enabled": given.take("BucketKeyEnabled"),
    }
    if given.text("RequestPayer"):
        found["request_payer"] = True
    given.end()
    return {name: value for name, value in found.items() if value not in (None, "")}


def _unsigned(config: FsspecOptions) -> bool:
    version = config.take("signature_version")
    if version in (None, "s3v4"):
        return False
    if type(version).__name__ == "UNSIGNED" or "UNSIGNED" in repr(version):
        return True
    raise OptionNotMapped("config_kwargs.signature_version")


def _client(
    client: FsspecOptions, config: FsspecOptions, endpoint: str, values: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[dict[str, Any], int | None]:
    connect = config.seconds("connect_timeout")
    read = config.seconds("read_timeout")
    found = client_options(connect, read)
    if endpoint.startswith("http://"):
        found["allow_http"] = True
    found |= certificate_options(
        client.take("verify"),
        environ.get("AWS_CA_BUNDLE") or values.get("ca_bundle") or environ.get("REQUESTS_CA_BUNDLE"),
    )
    proxies = config.inner("proxies")
    secure, plain = proxies.text("https"), proxies.text("http")
    proxies.end()
    proxy = plain if endpoint.startswith("http://") else secure
    if proxy:
        found["proxy_url"] = proxy if "://" in proxy else f"http://{proxy}"
    if most := config.take("max_pool_connections"):
        found["pool_max_idle_per_host"] = str(most)
    agent = config.text("user_agent")
    if agent:
        found["user_agent"] = agent
    retries = config.inner("retries")
    total, more = retries.take("total_max_attempts"), retries.take("max_attempts")
    retries.skip("mode")
    retries.end()
    tries = total if total is not None else None if more is None else more + 1
    return found, tries


def client_options(connect: float | None = None, read: float | None = None) -> dict[str, Any]:
    """How long is waited, in seconds."""
    return {
        "connect_timeout": f"{int((connect or CONNECT_SECONDS) * 1000)}ms",
        "read_timeout": f"{int((read or READ_SECONDS) * 1000)}ms",
        "timeout": f"{REQUEST_SECONDS:.0f}s",
    }


def certificate_options(verify: Any, bundle: str | None) -> dict[str, Any]:
    """Which certificates are trusted: `verify` as it is given to s3fs, or the file that the environment names."""
    if verify is False:
        return {"allow_invalid_certificates": True}
    place = verify if isinstance(verify, str) else bundle
    if not place:
        return {}
    try:
        return {"root_certificate": Path(place).expanduser().read_bytes()}
    except OSError as error:
        raise InputError(f"the certificates in {place} cannot be read: {error.strerror or error}") from None


def _region_of(bucket: str, error: StoreRefusal, endpoint: str) -> str:
    """The region of a bucket: the answer names it, or another one does. Empty: neither does."""
    if error.region:
        return error.region
    import urllib.error
    import urllib.request

    url = f"{endpoint}/{bucket}" if endpoint else f"https://{bucket}.s3.amazonaws.com"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REGION_SECONDS) as answer:
            return str(answer.headers.get("x-amz-bucket-region") or "")
    except urllib.error.HTTPError as refused:
        with refused:
            return str(refused.headers.get("x-amz-bucket-region") or "")
    except (OSError, ValueError):
        return ""
