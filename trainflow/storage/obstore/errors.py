"""What obstore raises, as errors of Python: one sentence of what the service answered, without address or signature.

Its exceptions are no `OSError`; their text is a sentence with the URL (in which a signature may be) and the body of the
answer, and then the insides of the library.
"""

from __future__ import annotations

import json
import re
from typing import Any

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})[^:]*:(.*)", re.DOTALL)
_DEBUG = "\n\nDebug source"
_REQUEST = re.compile(r"Error performing (?:[a-z]+ request: )*(?:Error performing )?([A-Z]+) ([^\s?]+)\S* in \S+")
#: what the library says of a connection that failed, deep inside; the first that is there
_CONNECTION = (
    (
        re.compile(r"(CaUsedAsEndEntity)"),
        "its certificate is that of an authority itself, which obstore takes for no server's ({}): have the server use "
        "one that the authority signed, or one with CA:FALSE, or write storage_options {{driver: fsspec}}",
    ),
    (
        re.compile(r"invalid peer certificate: ?(\w+)|InvalidCertificate\(\s*(\w+)"),
        "its certificate is not trusted ({})",
    ),
    (re.compile(r'error: "failed to lookup address information: ([^"]+)"'), "{}"),
    (re.compile(r'message: "([^"]+)"'), "{}"),
    (re.compile(r"InvalidMessage\(\s*(InvalidContentType)"), "it does not speak TLS"),
    (re.compile(r"TimedOut|kind: Timeout"), "timed out"),
    (re.compile(r"IncompleteMessage|UnexpectedEof|ChannelClosed|Canceled"), "the connection was closed"),
)
_CERTIFICATE = frozenset(pattern for pattern, _ in _CONNECTION[:2])
#: what may be asked again: the service did not do it, or that is not known
_TRANSIENT_STATUSES = frozenset({408, 500, 502, 504})
#: also where a client was too slow for S3 (400), and where an upload in parts is none any more (404): it was given up
#: there, or was done and its answer was lost. Begun anew it is another one
_TRANSIENT_CODES = frozenset({"RequestTimeout", "NoSuchUpload"})
_CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_MOST_SAID = 300
#: of Azure: why it does not know who asks
_DETAILS = ("Request date header", "Signature not valid in the specified time frame", "Signed expiry time")
#: the code where a server gave all of a file, and not the part that was asked for
NO_RANGE = "NoRange"
#: the code where a server gave all of a file that ends before the part begins, or says so otherwise than by 416
PAST_END = "PastEnd"


class StoreRefusal(OSError):
    """What a service answered; `status` is 0 where it did not. `transient`: asked again it may answer otherwise."""

    def __init__(
        self, text: str, *, status: int = 0, code: str = "", region: str = "", transient: bool = False
    ) -> None:
        super().__init__(text)
        self.status = status
        self.error_code = code
        self.region = region
        self.transient = transient


class RefusedMissing(StoreRefusal, FileNotFoundError):
    """A file or a bucket that is not there."""


class RefusedExisting(StoreRefusal, FileExistsError):
    """A file that was to be created is there."""


class RefusedCredentials(StoreRefusal, PermissionError):
    """Credentials that do not suffice."""


class NoAnswer(StoreRefusal, ConnectionError):
    """The service was not reached, or said nothing."""


def answer_of(error: Exception) -> Exception:
    """What is raised for what obstore raised."""
    text = str(error)
    sentence = text.partition(_DEBUG)[0]
    answered = _STATUS.search(sentence)
    if answered is not None:
        return _refusal(int(answered[1]), answered[2].strip(), error)
    if "Received redirect without LOCATION" in sentence:
        return StoreRefusal("the bucket is in another region", status=301, code="PermanentRedirect")
    if "HTTP error" in sentence or "error sending request" in text:
        return _not_reached(sentence, text)
    if isinstance(error, FileNotFoundError):
        return RefusedMissing(_plain(sentence))
    said = _plain(sentence)
    if "empty path segment" in said or "illegal character sequence" in said:
        said += ": names like that are read with storage_options {driver: fsspec}"
    if type(error).__name__ == "UnauthenticatedError":  # what was to fetch credentials failed
        said = said.replace("The operation lacked valid authentication credentials for path External", "the")
        return StoreRefusal(said, code="NoCredentials")
    return StoreRefusal(said, code=_own_code(text))


def _refusal(status: int, body: str, error: Exception) -> StoreRefusal:
    code, message, region = _told(body)
    text = " ".join(part for part in ("the store answered", str(status), code) if part)
    # not after a colon: `ExpiredToken: The …` looks like a token that is to be masked
    text = f"{text} ({message})" if message else text
    conflict = status == 409 and code in _CONFLICTS
    words: dict[str, Any] = {"status": status, "code": code, "region": region}
    if type(error).__name__ == "AlreadyExistsError" and not conflict and code not in _MISSING_AS_CONFLICT:
        return RefusedExisting(text, **words)
    if status == 404 and code not in _TRANSIENT_CODES:
        return RefusedMissing(text, **words)
    if status == 403:
        return RefusedCredentials(text, **words)
    transient = conflict or status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES
    return StoreRefusal(text, transient=transient, **words)


#: what Azure says with the status of a file that exists
_MISSING_AS_CONFLICT = frozenset({"ContainerBeingDeleted", "ContainerDisabled", "AccountBeingCreated"})


def _told(body: str) -> tuple[str, str, str]:
    """The code, the message, and the region that the body of an answer names."""
    if body.startswith("{"):
        try:
            found = json.loads(body)
        except ValueError:
            return "", "", ""
        inner = found.get("error", found)
        if not isinstance(inner, dict):
            return str(inner), str(found.get("error_description", ""))[:_MOST_SAID], ""
        return str(inner.get("status") or inner.get("code") or ""), str(inner.get("message", ""))[:_MOST_SAID], ""
    code, message, region = (_tag(body, name) for name in ("Code", "Message", "Region"))
    message = message.partition("\n")[0][:_MOST_SAID].rstrip(". ")
    details, why = (_tag(body, name)[:_MOST_SAID].rstrip(". ") for name in ("Details", "AuthenticationErrorDetail"))
    if why.startswith(_DETAILS):  # others hold the signature
        message = why
    return code, f"{message}: {details}" if details else message, region


def _tag(body: str, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", body, re.DOTALL)
    return found[1].strip() if found else ""


def _not_reached(sentence: str, text: str) -> StoreRefusal:
    request = _REQUEST.search(sentence)
    where = re.sub(r"^(\w+://[^/]+).*", r"\1", request[2]) if request else "the store"
    for pattern, words in _CONNECTION:
        if found := pattern.search(text):
            said = words.format(next((each for each in found.groups() if each), ""))
            certificate = pattern in _CERTIFICATE
            code = "CertificateNotTrusted" if certificate else ""
            return NoAnswer(f"could not connect to {where}: {said}", code=code, transient=not certificate)
    return NoAnswer(f"could not connect to {where}", transient=True)


def _own_code(text: str) -> str:
    """The reason, where the library itself has none but words: a server gave all where a part was asked for, or there
    are no credentials."""
    if "Received non-partial response" in text:
        return NO_RANGE
    if "Wanted range starting at" in text:
        return PAST_END
    return "NoCredentials" if "169.254.169.254" in text or "169.254.170" in text else ""


def _plain(sentence: str) -> str:
    """A sentence without the queries of URLs."""
    return re.sub(r"(\w+://[^\s?]+)\?\S+", r"\1", sentence.strip().partition("\n")[0])[:_MOST_SAID]
