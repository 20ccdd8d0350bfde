"""A server that refuses as S3, Google Cloud Storage and Azure Blob Storage do: the name of the bucket says how.

The bodies are those that the services send, as their users have reported them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.http_servers import serving


class Refusal(NamedTuple):
    """An answer."""

    status: int
    body: str
    headers: Mapping[str, str] = MappingProxyType({})


def _of_s3(status: int, code: str, message: str, more: str = "", **headers: str) -> Refusal:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}'
        "<RequestId>9E09E2E8D09D863C</RequestId><HostId>CQl85Ol1ejSfxwCFffw880W3OsDNI=</HostId></Error>"
    )
    return Refusal(status, body, {"Content-Type": "application/xml", **headers})


def _of_azure(status: int, code: str, message: str, detail: str = "") -> Refusal:
    more = f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>" if detail else ""
    body = (
        f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}\n'
        "RequestId:a7c15331-501e-0094-6847-7d350f000000\nTime:2019-10-07T19:46:36.6469406Z</Message>"
        f"{more}</Error>"
    )
    return Refusal(status, body, {"Content-Type": "application/xml", "x-ms-error-code": code})


def _of_gcs(status: int, reason: str, message: str) -> Refusal:
    errors = [{"message": message, "domain": "global", "reason": reason}]
    body = json.dumps({"error": {"code": status, "message": message, "errors": errors}})
    return Refusal(status, body, {"Content-Type": "application/json; charset=UTF-8"})


_NOT_AUTHENTICATED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly "
    "including the signature."
)
_NO_LIST = (
    "me@project.iam.gserviceaccount.com does not have storage.objects.list access to the Google Cloud Storage bucket. "
    "Permission 'storage.objects.list' denied on resource (or it may not exist)."
)
S3 = {
    "missing": _of_s3(404, "NoSuchBucket", "The specified bucket does not exist", "<BucketName>missing</BucketName>"),
    "denied": _of_s3(
        403,
        "AccessDenied",
        "User: arn:aws:iam::123456789012:user/me is not authorized to perform: s3:ListBucket on resource: "
        '"arn:aws:s3:::denied" because no identity-based policy allows the s3:ListBucket action',
    ),
    "expired": _of_s3(400, "ExpiredToken", "The provided token has expired.", "<Token-0>FwoGZXIvYXdz</Token-0>"),
    "malformed": _of_s3(400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
    "skewed": _of_s3(
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
        "<RequestTime>20250901T162148Z</RequestTime><ServerTime>2025-09-03T16:21:50Z</ServerTime>"
        "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>",
    ),
    "region": _of_s3(
        301,
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all "
        "future requests to this endpoint.",
        "<Endpoint>region.s3-ap-southeast-2.amazonaws.com</Endpoint><Bucket>region</Bucket>",
        **{"x-amz-bucket-region": "ap-southeast-2"},
    ),
    "signed": _of_s3(
        400,
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
        "<Region>eu-west-1</Region>",
    ),
    "nokey": _of_s3(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "wrongkey": _of_s3(
        403,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing "
        "method.",
    ),
    "throttled": _of_s3(503, "SlowDown", "Please reduce your request rate."),
    "page": Refusal(200, "<html><body>Welcome to nginx!</body></html>", {"Content-Type": "text/html"}),
    "proxy": Refusal(403, "<html><body>Blocked by the proxy</body></html>", {"Content-Type": "text/html"}),
}
AZURE = {
    "missing": _of_azure(404, "ContainerNotFound", "The specified container does not exist."),
    "denied": _of_azure(
        403,
        "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.",
    ),
    "firewall": _of_azure(403, "AuthorizationFailure", "This request is not authorized to perform this operation."),
    "wrongkey": _of_azure(
        403,
        "AuthenticationFailed",
        _NOT_AUTHENTICATED,
        "The MAC signature found in the HTTP request 'abc=' is not the same as any computed signature.",
    ),
    "expired": _of_azure(
        403,
        "AuthenticationFailed",
        _NOT_AUTHENTICATED,
        "Signature not valid in the specified time frame: Start [Thu, 09 Jul 2020 10:11:03 GMT] - Expiry [Thu, 09 Jul "
        "2020 18:11:03 GMT] - Current [Fri, 10 Jul 2020 10:16:22 GMT]",
    ),
    "expiredtoken": _of_azure(401, "InvalidAuthenticationInfo", "Lifetime validation failed. The token is expired."),
    "skewed": _of_azure(
        403,
        "AuthenticationFailed",
        _NOT_AUTHENTICATED,
        "Request date header too old: 'Fri, 04 Oct 2019 18:02:12 GMT'",
    ),
    "throttled": _of_azure(503, "ServerBusy", "The server is busy."),
}
GCS = {
    "missing": _of_gcs(404, "notFound", "The specified bucket does not exist."),
    "denied": _of_gcs(403, "forbidden", _NO_LIST),
    "expired": _of_gcs(401, "authError", "Invalid Credentials"),
    "throttled": _of_gcs(429, "rateLimitExceeded", "The project exceeded the rate limit for creating objects."),
}
#: of the XML API
GCS_XML = {
    "missing": _of_s3(404, "NoSuchBucket", "The specified bucket does not exist."),
    "denied": _of_s3(403, "AccessDenied", "Access denied.", f"<Details>{_NO_LIST}</Details>"),
    "expired": _of_s3(401, "AuthenticationRequired", "Authentication required."),
    "throttled": _of_s3(429, "SlowDown", "Please reduce your request rate."),
}


class RefusingServer(ThreadingHTTPServer):
    """Answers each request by the first name in its path that is in `refusals`; what it was asked is in `asked`."""

    daemon_threads = True

    def __init__(self, refusals: dict[str, Refusal]) -> None:
        self.refusals = refusals
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        names = urlsplit(self.path).path.split("/")
        refusal = next((server.refusals[name] for name in names if name in server.refusals), Refusal(404, ""))
        self.send_response(refusal.status)
        for name, value in refusal.headers.items():
            self.send_header(name, value)
        body = refusal.body.encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def refusing_server(refusals: dict[str, Refusal]) -> Iterator[RefusingServer]:
    """Run it."""
    server = RefusingServer(refusals)
    with serving(server):
        yield server
