"""Why a store refused, of what its drivers really raise."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from trainflow.errors import (
    SampleBucketMissing,
    SampleFileMissing,
    SampleUnreadable,
    StoreDenied,
    StoreFailure,
    StoreMissing,
)
from trainflow.observability.redaction import redact_text
from trainflow.storage.errors import CheckpointFailures, RefusalReason, SampleFailures, reason_of
from trainflow.storage.obstore.errors import StoreRefusal


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(f"An error occurred ({code}) when calling the ListObjectsV2 operation")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class AzureError(Exception):
    """As azure-core's HttpResponseError."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__("the request was refused")
        self.error_code = code
        self.status_code = status
        self.response = object()


class HttpError(Exception):
    """As gcsfs's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message}, {code}")
        self.code = code


class EndpointConnectionError(Exception):
    """As botocore's."""


class FileExpired(OSError):
    """As s3fs has it."""


class ServiceRequestError(Exception):
    """As azure-core's."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


NO_BUCKET = "The specified bucket does not exist"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            caused(FileNotFoundError("The specified bucket does not exist"), ClientError("NoSuchBucket", 404)),
            "BUCKET_MISSING",
        ),
        (FileNotFoundError(NO_BUCKET), "BUCKET_MISSING"),
        (AzureError("ContainerNotFound", 404), "BUCKET_MISSING"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), "OTHER"),
        (ClientError("NoSuchKey", 404), "OTHER"),
        (caused(PermissionError("x"), ClientError("InvalidAccessKeyId", 403)), "CREDENTIALS"),
        (caused(PermissionError("x"), ClientError("SignatureDoesNotMatch", 403)), "CREDENTIALS"),
        (caused(PermissionError("x"), ClientError("ExpiredToken", 400)), "EXPIRED"),
        (RuntimeError("Unable to locate credentials"), "CREDENTIALS"),
        (AzureError("AuthenticationFailed", 403), "CREDENTIALS"),
        (HttpError(401, "Invalid Credentials"), "CREDENTIALS"),
        (caused(PermissionError("x"), ClientError("AccessDenied", 403)), "DENIED"),
        (PermissionError(errno.EACCES, "Permission denied"), "DENIED"),
        (AzureError("AuthorizationFailure", 403), "DENIED"),
        (HttpError(403, "Forbidden"), "DENIED"),
        (ClientError("PermanentRedirect", 301), "REGION"),
        (ClientError("AuthorizationHeaderMalformed", 400), "REGION"),
        (EndpointConnectionError("Could not connect"), "UNREACHABLE"),
        (ServiceRequestError("Cannot connect to host"), "UNREACHABLE"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "UNREACHABLE"),
        (TimeoutError("timed out"), "UNREACHABLE"),
        (ClientError("SlowDown", 503), "THROTTLED"),
        (HttpError(429, "Too many"), "THROTTLED"),
        (OSError(errno.EBUSY, "Please reduce your request rate"), "THROTTLED"),
        (OSError(errno.ENOSPC, "No space left"), "FULL"),
        (OSError(errno.EROFS, "Read-only"), "READ_ONLY"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), "PATH_IS_A_FILE"),
        (ClientError("PreconditionFailed", 412), "CHANGED"),
        (StoreRefusal("the store answered 412", status=412), "CHANGED"),
        # s3fs gives it the number by which a store asks for fewer requests
        (FileExpired(errno.EBUSY, "File has been updated"), "CHANGED"),
        (KeyError("what"), "OTHER"),
    ],
    ids=lambda each: each if isinstance(each, str) else f"{type(each).__name__}",
)
def test_reason_of_what_drivers_raise_is_known(error: Exception, reason: str) -> None:
    assert reason_of(error) is RefusalReason[reason]
    said = str(SampleFailures().failure("list", "s3://b/t", error))
    assert said.startswith("s3://b/t cannot be read: ")
    assert said.endswith(RefusalReason[reason].value)


def test_failure_for_each_user_is_raised_as_its_own_exception() -> None:
    gone, no_bucket, denied = FileNotFoundError("a"), ClientError("NoSuchBucket"), PermissionError("no")
    found: list[tuple[Any, Any]] = [
        (CheckpointFailures().failure("read", "a", gone), FileNotFoundError),
        (CheckpointFailures().failure("write", "a", gone), StoreFailure),
        (CheckpointFailures().failure("write", "a", no_bucket), StoreMissing),
        (CheckpointFailures().failure("read", "a", denied), StoreDenied),
        (SampleFailures().failure("read", "a", gone), SampleFileMissing),
        (SampleFailures().failure("list", "a", no_bucket), SampleBucketMissing),
        (SampleFailures().failure("read", "a", denied), SampleUnreadable),
    ]
    assert [type(error) for error, _ in found] == [kind for _, kind in found]


def test_failure_of_reason_that_is_its_own_cause_ends() -> None:
    error = ValueError("round")
    error.__context__ = other = KeyError("and round")
    other.__context__ = error
    assert reason_of(error) is RefusalReason.OTHER


@pytest.mark.parametrize("reason", RefusalReason)
def test_reason_is_shown_whole(reason: RefusalReason) -> None:
    """What is shown goes through the masker, which takes `client_kwargs: {…}` for a secret."""
    assert redact_text(reason.value) == reason.value


def test_number_of_an_error_of_the_system_is_not_said() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/ledger/1.json")
    raised = CheckpointFailures().failure("create", "/data/ledger/1.json", full)
    assert str(raised).startswith("/data/ledger/1.json cannot be created: No space left on device")
