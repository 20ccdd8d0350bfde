"""Why a store refused, told from what its driver raised: each has exceptions of its own, without a base in common."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from enum import Enum
from typing import Any

from trainflow.storage.throttling import is_throttled


class Reason(Enum):
    """Why a store refused; the value says what to do."""

    BUCKET_MISSING = "create it, or check its name and the account or endpoint in the storage options"
    CREDENTIALS = "check the credentials in the storage options or the environment: they are absent, wrong or expired"
    DENIED = (
        "check the credentials (storage options or the environment): give this user or these credentials the right to "
        "read, create and delete there"
    )
    REGION = "name the region of the bucket in the storage options (client_kwargs: {region_name: …}) or in AWS_REGION"
    UNREACHABLE = "check the endpoint in the storage options and that this machine can reach it, then try again"
    THROTTLED = (
        "the store asks for fewer requests, and went on asking: try again later, and let fewer chains use it at the "
        "same time"
    )
    FULL = "the store is full: free space (trainflow prunes with a retention policy) and try again"
    READ_ONLY = "the store is mounted read-only: remount it or name another store"
    PATH_IS_A_FILE = "a part of the path is a file: move it away or name another store"
    OTHER = "check that the store exists and can be reached from here, then try again"


_CODES = {
    "NoSuchBucket": Reason.BUCKET_MISSING,
    "ContainerNotFound": Reason.BUCKET_MISSING,
    "ContainerBeingDeleted": Reason.BUCKET_MISSING,
    "FilesystemNotFound": Reason.BUCKET_MISSING,
    "InvalidAccessKeyId": Reason.CREDENTIALS,
    "SignatureDoesNotMatch": Reason.CREDENTIALS,
    "ExpiredToken": Reason.CREDENTIALS,
    "ExpiredTokenException": Reason.CREDENTIALS,
    "TokenRefreshRequired": Reason.CREDENTIALS,
    "InvalidToken": Reason.CREDENTIALS,
    "InvalidClientTokenId": Reason.CREDENTIALS,
    "RequestTimeTooSkewed": Reason.CREDENTIALS,
    "AuthenticationFailed": Reason.CREDENTIALS,
    "InvalidAuthenticationInfo": Reason.CREDENTIALS,
    "NoAuthenticationInformation": Reason.CREDENTIALS,
    "AccessDenied": Reason.DENIED,
    "AllAccessDisabled": Reason.DENIED,
    "AccountProblem": Reason.DENIED,
    "AuthorizationFailure": Reason.DENIED,
    "AuthorizationPermissionMismatch": Reason.DENIED,
    "InsufficientAccountPermissions": Reason.DENIED,
    "403": Reason.DENIED,
    "401": Reason.CREDENTIALS,
    "PermanentRedirect": Reason.REGION,
    "AuthorizationHeaderMalformed": Reason.REGION,
    "IllegalLocationConstraintException": Reason.REGION,
    "301": Reason.REGION,
}
_STATUSES = {401: Reason.CREDENTIALS, 403: Reason.DENIED, 301: Reason.REGION}
#: names of exceptions that tell it: of botocore, azure-core, azure-identity, google-auth, aiohttp and asyncssh
_CLASSES = {
    "NoCredentialsError": Reason.CREDENTIALS,
    "PartialCredentialsError": Reason.CREDENTIALS,
    "CredentialRetrievalError": Reason.CREDENTIALS,
    "TokenRetrievalError": Reason.CREDENTIALS,
    "UnauthorizedSSOTokenError": Reason.CREDENTIALS,
    "SSOTokenLoadError": Reason.CREDENTIALS,
    "ProfileNotFound": Reason.CREDENTIALS,
    "ClientAuthenticationError": Reason.CREDENTIALS,
    "CredentialUnavailableError": Reason.CREDENTIALS,
    "DefaultCredentialsError": Reason.CREDENTIALS,
    "RefreshError": Reason.CREDENTIALS,
    "PermissionDenied": Reason.CREDENTIALS,
    "EndpointConnectionError": Reason.UNREACHABLE,
    "ConnectTimeoutError": Reason.UNREACHABLE,
    "ReadTimeoutError": Reason.UNREACHABLE,
    "ConnectionClosedError": Reason.UNREACHABLE,
    "HTTPClientError": Reason.UNREACHABLE,
    "SSLError": Reason.UNREACHABLE,
    "ServiceRequestError": Reason.UNREACHABLE,
    "ServiceResponseError": Reason.UNREACHABLE,
    "ClientConnectorError": Reason.UNREACHABLE,
    "ClientConnectionError": Reason.UNREACHABLE,
    "ServerDisconnectedError": Reason.UNREACHABLE,
    "ServerTimeoutError": Reason.UNREACHABLE,
    "TransportError": Reason.UNREACHABLE,
    "gaierror": Reason.UNREACHABLE,
    "FSTimeoutError": Reason.UNREACHABLE,
}
_NUMBERS = {
    errno.ENOSPC: Reason.FULL,
    errno.EDQUOT: Reason.FULL,
    errno.EROFS: Reason.READ_ONLY,
    errno.ENOTDIR: Reason.PATH_IS_A_FILE,
}
#: what is said where neither a code nor a class tells it, in lower case
_TEXTS = (
    ("bucket does not exist", Reason.BUCKET_MISSING),
    ("container does not exist", Reason.BUCKET_MISSING),
    ("locate credentials", Reason.CREDENTIALS),
    ("invalid credentials", Reason.CREDENTIALS),
    ("access key id you provided does not exist", Reason.CREDENTIALS),
    ("token has expired", Reason.CREDENTIALS),
    ("token included in the request is expired", Reason.CREDENTIALS),
    ("signature we calculated does not match", Reason.CREDENTIALS),
    ("server failed to authenticate", Reason.CREDENTIALS),
    ("unable to resolve connection string", Reason.CREDENTIALS),
    ("access denied", Reason.DENIED),
    ("forbidden", Reason.DENIED),
    ("must be addressed using the specified endpoint", Reason.REGION),
    ("could not connect to the endpoint", Reason.UNREACHABLE),
    ("cannot connect to host", Reason.UNREACHABLE),
    ("connection refused", Reason.UNREACHABLE),
    ("name or service not known", Reason.UNREACHABLE),
    ("timed out", Reason.UNREACHABLE),
)


def reason_of(error: BaseException) -> Reason:
    """Why a store refused. What caused the error tells it too: s3fs turns the answers of S3 into errors of Python."""
    found = [reason for each in chain_of(error) for reason in _told_by(each)]
    # a missing bucket is also a file that is not there, and credentials that expired are also not permitted
    return next((reason for reason in Reason if reason in found), Reason.OTHER)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _told_by(error: BaseException) -> Iterator[Reason]:
    if is_throttled(error):
        yield Reason.THROTTLED
        return
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        yield _NUMBERS[error.errno]
    for code in _codes(error):
        if code in _CODES:
            yield _CODES[code]
    for each in type(error).__mro__:
        if each.__name__ in _CLASSES:
            yield _CLASSES[each.__name__]
            break
    if isinstance(error, PermissionError):
        yield Reason.DENIED
    elif isinstance(error, NotADirectoryError):
        yield Reason.PATH_IS_A_FILE
    elif isinstance(error, ConnectionError | TimeoutError):
        yield Reason.UNREACHABLE
    text = str(error).lower()
    yield from (reason for words, reason in _TEXTS if words in text)


def _codes(error: BaseException) -> Iterator[str]:
    """What the service answered: botocore's code, that of Azure, the status of HTTP."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        yield str(response.get("Error", {}).get("Code"))
    for name in ("error_code", "status", "status_code", "code"):
        value = getattr(error, name, None)
        yield str(getattr(value, "value", value))
