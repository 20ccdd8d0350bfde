"""What `~/.aws/config` and `~/.aws/credentials` say of a profile, and which credentials follow from that.

The order is botocore's: what is given, then the environment, then a role or a session that the profile names, then the
keys in its files, and last the machine (ECS, EKS, EC2). Keys are read here; what has to be fetched for a profile
(roles, SSO, programs) is fetched by botocore, which is imported for that alone.
"""

from __future__ import annotations

import configparser
from collections.abc import Callable, Mapping
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

from trainflow.clock import SystemClock
from trainflow.errors import InputError

#: of a profile that botocore has to see to
_FETCHED = (
    "role_arn",
    "sso_session",
    "sso_account_id",
    "sso_start_url",
    "credential_process",
    "web_identity_token_file",
    "login_session",
)
#: how long keys are taken for good that come with a token: what wrote them writes new ones
_FILE_SECONDS = 900
Provider = Callable[[], dict[str, Any]]


class Profile:
    """A profile, of the files that the environment names. `named`: it was asked for, and not taken by default."""

    def __init__(self, name: str | None, environ: Mapping[str, str]) -> None:
        asked = name or environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
        self.named = asked is not None
        self.name = asked or "default"
        self._environ = environ

    def values(self) -> dict[str, str]:
        """What the files say now, credentials over configuration; empty where they do not know it."""
        config = _parsed(self._environ.get("AWS_CONFIG_FILE") or "~/.aws/config")
        section = config.get(f"profile {self.name}") or config.get(self.name) or {}
        keys = _parsed(self._environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").get(self.name, {})
        found = {**section, **keys}
        services = config.get(f"services {found.get('services', '')}", {})
        return {**found, **{f"service.{name}": value for name, value in services.items()}}

    def endpoint(self) -> str:
        """The endpoint of S3 that the profile names."""
        values = self.values()
        nested = _nested(values.get("service.s3", "")).get("endpoint_url", "")
        return nested or values.get("endpoint_url", "")


def _parsed(place: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, default_section="\0")
    try:
        parser.read_string(Path(place).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}
    except configparser.Error as error:
        raise InputError(f"{place} cannot be read: {str(error).partition(chr(10))[0]}") from None
    return {" ".join(name.replace('"', "").split()): dict(parser.items(name)) for name in parser.sections()}


def _nested(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def credentials(profile: Profile, environ: Mapping[str, str], *, given: bool) -> Provider | None:
    """What is asked for credentials again and again; None where the environment or the machine gives them. `given`: the
    profile was named by an option, and goes before the environment. Raises InputError for a profile that is not
    there."""
    values = profile.values()
    if not given and (environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY")):
        return None
    if profile.named and not values:
        raise InputError(f"the AWS profile {profile.name!r} is neither in the config file nor in the credentials file")
    if any(values.get(name) for name in _FETCHED):
        return _OfBotocore(profile.name)
    if not given and environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environ.get("AWS_ROLE_ARN"):
        return None
    return _of_files(profile) if values.get("aws_access_key_id") else None


def _of_files(profile: Profile) -> Provider:
    known: dict[str, str] = {}

    def read() -> dict[str, Any]:
        values = profile.values()
        # a file that is being written has none, or not all, for a moment
        if values.get("aws_access_key_id") and values.get("aws_secret_access_key"):
            known.clear()
            known.update(values)
        if not known:
            raise RuntimeError(f"the AWS profile {profile.name!r} has no keys any more")
        token = known.get("aws_session_token") or known.get("aws_security_token")
        found = {"access_key_id": known["aws_access_key_id"], "secret_access_key": known["aws_secret_access_key"]}
        until = SystemClock().now() + timedelta(seconds=_FILE_SECONDS) if token else None
        return {**found, "token": token, "expires_at": until}

    return read


class _OfBotocore:
    """Credentials that botocore fetches, and fetches anew before they end. Raises InputError where it is missing."""

    def __init__(self, name: str) -> None:
        try:
            import botocore.session  # here, and not when it is asked: a process that is forked after this has it
        except ImportError:
            raise InputError(
                f"the AWS profile {name!r} names a role, a session or a program, which botocore sees to: "
                "pip install 'trainflow[s3]'"
            ) from None
        self._open = botocore.session.Session
        self._name = name
        self._known: Any = None

    def __call__(self) -> dict[str, Any]:
        known = self._known or self._open(profile=self._name).get_credentials()
        if known is None:
            raise RuntimeError(f"unable to locate credentials of the AWS profile {self._name!r}")
        self._known = known
        keys = known.get_frozen_credentials()
        ends = getattr(known, "_expiry_time", None)
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            # of those that end: botocore fetches others when less than a quarter of an hour is left
            "expires_at": None
            if ends is None
            else ends.astimezone(UTC),  # obstore takes no other zone of the same name
        }

    def forget(self) -> None:
        """Fetch others when they are asked for next: a program that says no end may give others by then."""
        self._known = None
