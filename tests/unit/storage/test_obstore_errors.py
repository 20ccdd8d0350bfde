"""What obstore raises, told in one sentence: texts as it writes them."""

from __future__ import annotations

import pytest

from trainflow.storage.errors import CheckpointFailures, RefusalReason, is_throttled, reason_of
from trainflow.storage.obstore.errors import (
    NoAnswer,
    RefusedCredentials,
    RefusedExisting,
    RefusedMissing,
    StoreRefusal,
    answer_of,
)

URL = "https://me.blob.core.windows.net/c/x?sv=2024&sig=s3cr3t%3D"


class GenericError(Exception):
    """As obstore's."""


class AlreadyExistsError(Exception):
    """As obstore's."""


class UnauthenticatedError(Exception):
    """As obstore's."""


def refused(status: int, code: str, *, kind: type[Exception] = GenericError, more: str = "") -> Exception:
    """As S3 and Azure refuse."""
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>It is so.\nTime: 1</Message>{more}</Error>"
    said = f"Error performing PUT {URL} in 1.2ms - Server returned non-2xx status code: {status} Reason: {body}"
    return kind(f"Generic S3 error: {said}\n\nDebug source:\nGeneric {{ uri: {URL} }}")


def not_reached(inside: str) -> Exception:
    """As a connection fails."""
    said = f"Error performing GET {URL} in 30ms - HTTP error: error sending request"
    return GenericError(f"Generic S3 error: {said}\n\nDebug source:\nGeneric {{\n uri: {URL}, {inside} }}")


@pytest.mark.parametrize(
    ("raised", "kind", "reason"),
    [
        (refused(404, "NoSuchBucket", kind=FileNotFoundError), RefusedMissing, "BUCKET_MISSING"),
        (refused(404, "ContainerNotFound"), RefusedMissing, "BUCKET_MISSING"),
        (refused(404, "NoSuchKey", kind=FileNotFoundError), RefusedMissing, "OTHER"),
        (refused(403, "AccessDenied"), RefusedCredentials, "DENIED"),
        (refused(403, "InvalidAccessKeyId"), RefusedCredentials, "CREDENTIALS"),
        (refused(403, "RequestTimeTooSkewed"), RefusedCredentials, "CLOCK"),
        (refused(400, "ExpiredToken"), StoreRefusal, "EXPIRED"),
        (refused(403, "AuthenticationFailed"), RefusedCredentials, "CREDENTIALS"),
        (refused(400, "AuthorizationHeaderMalformed"), StoreRefusal, "REGION"),
        (refused(503, "SlowDown"), StoreRefusal, "THROTTLED"),
        (refused(429, "TooManyRequests"), StoreRefusal, "THROTTLED"),
        (refused(503, "ServerBusy"), StoreRefusal, "THROTTLED"),
        (refused(412, "PreconditionFailed", kind=AlreadyExistsError), RefusedExisting, "OTHER"),
        (refused(409, "BlobAlreadyExists", kind=AlreadyExistsError), RefusedExisting, "OTHER"),
        (not_reached('message: "Connection refused"'), NoAnswer, "UNREACHABLE"),
        (
            not_reached('error: "failed to lookup address information: Name or service not known"'),
            NoAnswer,
            "UNREACHABLE",
        ),
        (not_reached("kind: Timeout, source: TimedOut"), NoAnswer, "UNREACHABLE"),
        (not_reached("InvalidCertificate(\n UnknownIssuer, )"), NoAnswer, "CERTIFICATE"),
        (
            GenericError("Generic S3 error: Error performing GET x in 1ms - Received redirect without LOCATION, this"),
            StoreRefusal,
            "REGION",
        ),
        (
            GenericError(
                "Generic S3 error: Error performing token request: Error performing PUT http://169.254.169.254/x"
            ),
            StoreRefusal,
            "CREDENTIALS",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_answer_of_what_obstore_raises_is_one_sentence_with_a_reason(
    raised: Exception, kind: type[Exception], reason: str
) -> None:
    found = answer_of(raised)
    assert type(found) is kind
    assert reason_of(found) is RefusalReason[reason]
    assert is_throttled(found) == (reason == "THROTTLED")
    said = str(CheckpointFailures().failure("list", "az://c/x", found))
    assert said.endswith(RefusalReason[reason].value)
    for secret in ("s3cr3t", "sig=", "\n", "Debug", "<Code>"):
        assert secret not in said


@pytest.mark.parametrize(
    ("raised", "transient"),
    [
        (refused(500, "InternalError"), True),
        (refused(502, ""), True),
        (refused(409, "ConditionalRequestConflict", kind=AlreadyExistsError), True),
        (refused(408, ""), True),
        (refused(400, "RequestTimeout"), True),
        # the upload was given up there, or its end was not heard: it begins anew
        (refused(404, "NoSuchUpload", kind=FileNotFoundError), True),
        (refused(501, "NotImplemented"), False),
        (refused(400, "ExpiredToken"), False),
        (not_reached('message: "Connection reset by peer"'), True),
        (not_reached("InvalidCertificate(Expired)"), False),
    ],
)
def test_answer_of_what_may_be_otherwise_the_next_time_is_transient(raised: Exception, transient: bool) -> None:
    found = answer_of(raised)
    assert isinstance(found, StoreRefusal)
    assert not isinstance(found, FileExistsError | FileNotFoundError)
    assert found.transient == transient


def test_answer_of_credentials_that_could_not_be_fetched_says_why() -> None:
    said = "The operation lacked valid authentication credentials for path External AWS credential provider"
    found = answer_of(UnauthenticatedError(f"{said}: SSOError: over\n\nDebug source:\nUnauthenticated {{}}"))
    assert str(found) == "the AWS credential provider: SSOError: over"
    assert reason_of(found) is RefusalReason.CREDENTIALS


def test_answer_of_google_is_read_from_its_json() -> None:
    body = '{"error": {"code": 403, "message": "no access", "status": "PERMISSION_DENIED"}}'
    raised = GenericError(
        f"Generic GCS error: x - Server returned non-2xx status code: 403 Forbidden: {body}\n\nDebug source"
    )
    assert str(answer_of(raised)) == "the store answered 403 PERMISSION_DENIED (no access)"


def test_answer_of_names_the_region_that_the_store_names() -> None:
    found = answer_of(refused(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"))
    assert isinstance(found, StoreRefusal)
    assert found.region == "eu-west-1"
