"""What a store's refusal is raised as: which exception, where, why, and what to do. No secret is in it.

Why a store refused is told from what its driver raised: each has exceptions of its own, without a base in common.
"""

from __future__ import annotations

import errno
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NoReturn

from trainflow.errors import (
    SampleBucketMissing,
    SampleFileMissing,
    SampleUnreadable,
    StoreDenied,
    StoreFailure,
    StoreMissing,
)
from trainflow.observability.redaction import redact_text, texts_of

_DONE = {
    "read": "read",
    "list": "read",
    "create": "created",
    "write": "written",
    "upload": "written",
    "delete": "deleted",
    "seal": "made read-only",
    "reach": "used",
}


#: how Python says that a function has no such parameter: drivers hand on what they do not know
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")


#: how an error of the system begins: its number says nothing to people that its words do not
_NUMBER = re.compile(r"^\[Errno -?\d+\] ")


class Failures(ABC):
    """Make the exceptions that a store raises, for those who opened it. `options`: their texts are masked."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        # which driver it is may be said
        self._options = frozenset(_names(options or {}))
        self._secrets = tuple(texts_of({name: value for name, value in (options or {}).items() if name != "driver"}))

    def failure(self, doing: str, location: str, error: BaseException) -> BaseException:
        """What is raised for what a driver raised while it was `doing` something; `error` itself where that says it."""
        if isinstance(error, FileNotFoundError) and doing == "read":
            return self._file_missing(error, location)
        reason = reason_of(error)
        return self._failure(self._message(doing, location, error, reason), location, reason)

    def raise_for(self, doing: str, location: str, error: BaseException) -> NoReturn:
        """Raise it."""
        raised = self.failure(doing, location, error)
        if raised is error:
            raise error
        raise raised from self.shown(error)

    def _message(self, doing: str, location: str, error: BaseException, reason: RefusalReason) -> str:
        unknown = _UNKNOWN_OPTION.search(str(error)) if isinstance(error, TypeError) else None
        if unknown is not None and unknown[1] in self._options:
            return (
                f"{self.masked(location)} cannot be {_DONE[doing]}: its driver knows no storage option '{unknown[1]}'"
            )
        said = self.masked(_said(error)).rstrip(".")
        of_machine = _of_this_machine(doing, location, error, reason)
        return f"{self.masked(location)} cannot be {_DONE[doing]}: {said}; {of_machine or reason.value}"

    def bucket_missing(self, location: str, bucket: str) -> Exception:
        """The bucket or container does not exist."""
        where = self.masked(location)
        message = f"{where} cannot be used: its bucket (or container) {bucket!r} does not exist; "
        return self._failure(message + RefusalReason.BUCKET_MISSING.value, location, RefusalReason.BUCKET_MISSING)

    def masked(self, text: str) -> str:
        """`text` without secrets."""
        return redact_text(text, self._secrets)

    def shown(self, error: BaseException) -> BaseException | None:
        """The cause to show in a traceback: none when it would print a secret."""
        return error if all(self.masked(str(each)) == str(each) for each in chain_of(error)) else None

    @abstractmethod
    def _failure(self, message: str, location: str, reason: RefusalReason) -> Exception: ...

    @abstractmethod
    def _file_missing(self, error: FileNotFoundError, location: str) -> Exception: ...


class CheckpointFailures(Failures):
    """StoreFailure and those below it, for checkpoints; FileNotFoundError for a file that is not there."""

    def _failure(self, message: str, location: str, reason: RefusalReason) -> Exception:
        if reason is RefusalReason.BUCKET_MISSING:
            return StoreMissing(message, location=self.masked(location))
        kind = StoreDenied if reason in LASTING_REASONS else StoreFailure
        return kind(message, location=self.masked(location))

    def _file_missing(self, error: FileNotFoundError, location: str) -> Exception:
        return error  # asked for often: a ledger's next entry is not there until it is


class SampleFailures(Failures):
    """SampleUnreadable and those below it, for samples; SampleFileMissing for a file that is not there."""

    def _failure(self, message: str, location: str, reason: RefusalReason) -> Exception:
        return SampleBucketMissing(message) if reason is RefusalReason.BUCKET_MISSING else SampleUnreadable(message)

    def _file_missing(self, error: FileNotFoundError, location: str) -> Exception:
        reason = reason_of(error)
        message = self._message("read", location, error, reason)
        return SampleBucketMissing(message) if reason is RefusalReason.BUCKET_MISSING else SampleFileMissing(message)


def failure(doing: str, location: str, error: BaseException) -> BaseException:
    """What went wrong with a file of checkpoints, where, and what to do about it."""
    return CheckpointFailures().failure(doing, location, error)


def is_missing_bucket(error: BaseException) -> bool:
    """Whether a file or a folder is not there because its bucket is not."""
    return reason_of(error) is RefusalReason.BUCKET_MISSING


def _of_this_machine(doing: str, location: str, error: BaseException, reason: RefusalReason) -> str | None:
    """What to do where it is not for the store to do it: a disk of this machine, or whose its files are."""
    from trainflow.observability.file_access import of_another_user, refused_by_disk

    if reason is RefusalReason.DENIED:
        return of_another_user(chain_of(error), to_write=doing != "read")
    return refused_by_disk(chain_of(error), location) if reason in _OF_DISKS else None


def _names(options: Mapping[str, Any]) -> Iterator[str]:
    """Names of options, also of those inside of one."""
    for name, value in options.items():
        yield str(name)
        if isinstance(value, Mapping):
            yield from _names(value)


def _said(error: BaseException) -> str:
    """What a driver says: an error of the system speaks for itself, of others the class is a part of what they say."""
    text = _NUMBER.sub("", str(error).strip().partition("\n")[0])
    if isinstance(error, OSError) and text:
        return text
    return f"{text} ({type(error).__name__})" if text else type(error).__name__


class RefusalReason(Enum):
    """Why a store refused; the value says what to do."""

    BUCKET_MISSING = "create it, or check its name and the account or endpoint in the storage options"
    CLOCK = "set the clock of this machine (timedatectl, chrony): stores take requests of a few minutes ago at the most"
    EXPIRED = "get new credentials (a new token or SAS, or log in again): those that are used have expired"
    CREDENTIALS = "check the credentials in the storage options or the environment: they are absent, wrong or expired"
    DENIED = (
        "check the credentials (storage options or the environment): give this user or these credentials the right to "
        "read, create and delete there"
    )
    HOST_KEY = (
        "compare the server's host key with what its owner says and add it to ~/.ssh/known_hosts (ssh-keyscan), or "
        "name the file that has it in the storage option known_hosts"
    )
    REGION = "name the region of the bucket in the storage options (region_name in client_kwargs) or in AWS_REGION"
    CERTIFICATE = (
        "name the file of the authority that signed it in the storage options (verify in client_kwargs), or in "
        "AWS_CA_BUNDLE, or SSL_CERT_FILE"
    )
    UNREACHABLE = "check the endpoint in the storage options and that this machine can reach it, then try again"
    THROTTLED = (
        "the store asks for fewer requests, and went on asking: try again later, and let fewer chains use it at the "
        "same time"
    )
    FULL = "the store is full: free space (trainflow prunes with a retention policy) and try again"
    READ_ONLY = "the store is mounted read-only: remount it or name another store"
    CHANGED = "it was written anew while it was read: the next try reads what is there now"
    PATH_IS_A_FILE = "a part of the path is a file: move it away or name another store"
    OTHER = "check that the store exists and can be reached from here, then try again"


#: what stays as it is until a person changes something
LASTING_REASONS = frozenset(
    {
        RefusalReason.CLOCK,
        RefusalReason.EXPIRED,
        RefusalReason.CREDENTIALS,
        RefusalReason.DENIED,
        RefusalReason.HOST_KEY,
        RefusalReason.REGION,
        RefusalReason.CERTIFICATE,
        RefusalReason.READ_ONLY,
        RefusalReason.PATH_IS_A_FILE,
    }
)
_OF_DISKS = frozenset({RefusalReason.FULL, RefusalReason.READ_ONLY})
_CODES = {
    "NoSuchBucket": RefusalReason.BUCKET_MISSING,
    "ContainerNotFound": RefusalReason.BUCKET_MISSING,
    "ContainerBeingDeleted": RefusalReason.BUCKET_MISSING,
    "FilesystemNotFound": RefusalReason.BUCKET_MISSING,
    "InvalidAccessKeyId": RefusalReason.CREDENTIALS,
    "SignatureDoesNotMatch": RefusalReason.CREDENTIALS,
    "ExpiredToken": RefusalReason.EXPIRED,
    "ExpiredTokenException": RefusalReason.EXPIRED,
    "TokenRefreshRequired": RefusalReason.EXPIRED,
    "InvalidToken": RefusalReason.CREDENTIALS,
    "InvalidClientTokenId": RefusalReason.CREDENTIALS,
    "RequestTimeTooSkewed": RefusalReason.CLOCK,
    "RequestExpired": RefusalReason.CLOCK,
    "AuthenticationFailed": RefusalReason.CREDENTIALS,
    "InvalidAuthenticationInfo": RefusalReason.CREDENTIALS,
    "NoAuthenticationInformation": RefusalReason.CREDENTIALS,
    "AccessDenied": RefusalReason.DENIED,
    "AllAccessDisabled": RefusalReason.DENIED,
    "AccountProblem": RefusalReason.DENIED,
    "AuthorizationFailure": RefusalReason.DENIED,
    "AuthorizationPermissionMismatch": RefusalReason.DENIED,
    "InsufficientAccountPermissions": RefusalReason.DENIED,
    "403": RefusalReason.DENIED,
    "401": RefusalReason.CREDENTIALS,
    "PermanentRedirect": RefusalReason.REGION,
    "AuthorizationHeaderMalformed": RefusalReason.REGION,
    "IllegalLocationConstraintException": RefusalReason.REGION,
    "301": RefusalReason.REGION,
    "412": RefusalReason.CHANGED,
    "CertificateNotTrusted": RefusalReason.CERTIFICATE,
    "NoCredentials": RefusalReason.CREDENTIALS,
}
_STATUSES = {401: RefusalReason.CREDENTIALS, 403: RefusalReason.DENIED, 301: RefusalReason.REGION}
#: names of exceptions that tell it: of botocore, azure-core, azure-identity, google-auth, aiohttp and asyncssh
_CLASSES = {
    "NoCredentialsError": RefusalReason.CREDENTIALS,
    "PartialCredentialsError": RefusalReason.CREDENTIALS,
    "CredentialRetrievalError": RefusalReason.CREDENTIALS,
    "TokenRetrievalError": RefusalReason.CREDENTIALS,
    "UnauthorizedSSOTokenError": RefusalReason.CREDENTIALS,
    "SSOTokenLoadError": RefusalReason.CREDENTIALS,
    "ProfileNotFound": RefusalReason.CREDENTIALS,
    "ClientAuthenticationError": RefusalReason.CREDENTIALS,
    "CredentialUnavailableError": RefusalReason.CREDENTIALS,
    "DefaultCredentialsError": RefusalReason.CREDENTIALS,
    "RefreshError": RefusalReason.CREDENTIALS,
    "PermissionDenied": RefusalReason.CREDENTIALS,
    "HostKeyNotVerifiable": RefusalReason.HOST_KEY,
    "KeyImportError": RefusalReason.CREDENTIALS,
    "KeyEncryptionError": RefusalReason.CREDENTIALS,
    "ConnectionLost": RefusalReason.UNREACHABLE,
    "DisconnectError": RefusalReason.UNREACHABLE,
    "SFTPConnectionLost": RefusalReason.UNREACHABLE,
    "SFTPNoConnection": RefusalReason.UNREACHABLE,
    "EndpointConnectionError": RefusalReason.UNREACHABLE,
    "ConnectTimeoutError": RefusalReason.UNREACHABLE,
    "ReadTimeoutError": RefusalReason.UNREACHABLE,
    "ConnectionClosedError": RefusalReason.UNREACHABLE,
    "HTTPClientError": RefusalReason.UNREACHABLE,
    "SSLError": RefusalReason.UNREACHABLE,
    "ServiceRequestError": RefusalReason.UNREACHABLE,
    "ServiceResponseError": RefusalReason.UNREACHABLE,
    "ClientConnectorError": RefusalReason.UNREACHABLE,
    "ClientConnectionError": RefusalReason.UNREACHABLE,
    "ServerDisconnectedError": RefusalReason.UNREACHABLE,
    "ServerTimeoutError": RefusalReason.UNREACHABLE,
    "TransportError": RefusalReason.UNREACHABLE,
    "gaierror": RefusalReason.UNREACHABLE,
    "FSTimeoutError": RefusalReason.UNREACHABLE,
    "FileExpired": RefusalReason.CHANGED,
}
#: by which a store asks for fewer requests
_THROTTLED_STATUSES = {429, 503}
_THROTTLED_TEXTS = ("SlowDown", "TooManyRequests", "Throttling", "RequestLimitExceeded", "reduce your request rate")
_NUMBERS = {
    errno.ENOSPC: RefusalReason.FULL,
    errno.EDQUOT: RefusalReason.FULL,
    errno.EROFS: RefusalReason.READ_ONLY,
    errno.ENOTDIR: RefusalReason.PATH_IS_A_FILE,
}
#: what is said where neither a code nor a class tells it, in lower case
_TEXTS = (
    ("bucket does not exist", RefusalReason.BUCKET_MISSING),
    ("container does not exist", RefusalReason.BUCKET_MISSING),
    ("locate credentials", RefusalReason.CREDENTIALS),
    ("invalid credentials", RefusalReason.CREDENTIALS),
    ("access key id you provided does not exist", RefusalReason.CREDENTIALS),
    ("request date header too old", RefusalReason.CLOCK),
    ("between the request time and the current time is too large", RefusalReason.CLOCK),
    ("in a reasonable timeframe", RefusalReason.CLOCK),
    ("token has expired", RefusalReason.EXPIRED),
    ("token is expired", RefusalReason.EXPIRED),
    ("token included in the request is expired", RefusalReason.EXPIRED),
    ("signature not valid in the specified time frame", RefusalReason.EXPIRED),
    ("must be after signed start time", RefusalReason.EXPIRED),
    ("signature we calculated does not match", RefusalReason.CREDENTIALS),
    ("server failed to authenticate", RefusalReason.CREDENTIALS),
    ("unable to resolve connection string", RefusalReason.CREDENTIALS),
    ("access denied", RefusalReason.DENIED),
    ("forbidden", RefusalReason.DENIED),
    ("certificate verify failed", RefusalReason.CERTIFICATE),
    ("must be addressed using the specified endpoint", RefusalReason.REGION),
    ("could not connect to the endpoint", RefusalReason.UNREACHABLE),
    ("cannot connect to host", RefusalReason.UNREACHABLE),
    ("connection refused", RefusalReason.UNREACHABLE),
    ("name or service not known", RefusalReason.UNREACHABLE),
    ("timed out", RefusalReason.UNREACHABLE),
)


def reason_of(error: BaseException) -> RefusalReason:
    """Why a store refused. What caused the error tells it too: s3fs turns the answers of S3 into errors of Python."""
    found = [reason for each in chain_of(error) for reason in _told_by(each)]
    # a missing bucket is also a file that is not there, and credentials that expired are also not permitted
    return next((reason for reason in RefusalReason if reason in found), RefusalReason.OTHER)


def is_throttled(error: BaseException) -> bool:
    """Whether the store refused because it is asked too much. Each driver says so in its own way."""
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return type(error).__name__ != "FileExpired"
    statuses = {getattr(error, name, None) for name in ("status", "code", "status_code")}
    return bool(_THROTTLED_STATUSES & {each for each in statuses if isinstance(each, int)}) or any(
        word in str(error) for word in _THROTTLED_TEXTS
    )


def is_transient(error: BaseException) -> bool:
    """Whether a request failed on its way, of a driver that does not itself make it again."""
    return bool(getattr(error, "transient", False))


def error_kind(error: BaseException) -> str | None:
    """The reason in one word, for counts; None where it is an answer: a file is not there, or there already, or ends
    before what was asked of it."""
    if not isinstance(error, Exception):
        return "interrupted"
    reason = reason_of(error)
    is_answer = isinstance(error, FileNotFoundError | FileExistsError) or getattr(error, "status", 0) == 416
    return None if is_answer and reason is not RefusalReason.BUCKET_MISSING else reason.name.lower()


def ends_before(error: Exception) -> bool:
    """Whether a file ends before the range that was asked of it begins."""
    return "416" in set(_codes(error)) or "InvalidRange" in set(_codes(error))


def is_not_implemented(error: BaseException) -> bool:
    """Whether the store does not know what it was asked to do."""
    return any({"501", "NotImplemented"} & set(_codes(each)) for each in chain_of(error))


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _told_by(error: BaseException) -> Iterator[RefusalReason]:
    if is_throttled(error):
        yield RefusalReason.THROTTLED
        return
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        yield _NUMBERS[error.errno]
    for code in _codes(error):
        if code in _CODES and not isinstance(error, FileExistsError):
            yield _CODES[code]
    for each in type(error).__mro__:
        if each.__name__ in _CLASSES:
            yield _CLASSES[each.__name__]
            break
    if isinstance(error, PermissionError):
        yield RefusalReason.DENIED
    elif isinstance(error, NotADirectoryError):
        yield RefusalReason.PATH_IS_A_FILE
    elif isinstance(error, ConnectionError | TimeoutError):
        yield RefusalReason.UNREACHABLE
    text = str(error).lower()
    yield from (reason for words, reason in _TEXTS if words in text)


def _codes(error: BaseException) -> Iterator[str]:
    """What the service answered: botocore's code, that of Azure, the status of HTTP."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        yield str(response.get("Error", {}).get("Code"))
        yield str(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    for name in ("error_code", "status", "status_code", "code"):
        value = getattr(error, name, None)
        yield str(getattr(value, "value", value))
