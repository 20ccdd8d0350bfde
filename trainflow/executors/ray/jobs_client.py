"""Ray's Jobs API over plain HTTP: six calls, each one request and its answer."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from trainflow.errors import EngineError

#: how long one answer is waited for; a head that looks for an agent to start a job with takes up to a minute
ANSWER_SECONDS = 65.0
_NOT_ALLOWED = frozenset({401, 403})


class RayUnreachable(EngineError):
    """The head does not answer, or not as it should; it will again."""


class RayRefused(EngineError):
    """The head says that a request can never be done."""


class RayJob(msgspec.Struct, frozen=True):
    """A job, as Ray tells of it."""

    status: str
    submission_id: str | None = None
    message: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it will never run again."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")


_JOBS = msgspec.json.Decoder(list[RayJob])
_JOB = msgspec.json.Decoder(RayJob)


class RayJobsClient:
    """Speaks to one head. Raises RayUnreachable where there is no answer that can be used."""

    def __init__(
        self, address: str, *, token: str = "", ca_file: str | None = None, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        """Raises EngineError for authorities that cannot be read."""
        parts = urlsplit(address)
        assert parts.hostname is not None
        self.address = address
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._answer_seconds = answer_seconds
        try:
            self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        except (OSError, ssl.SSLError) as error:
            raise EngineError(f"the authorities in {ca_file} cannot be used: {error}") from None

    def jobs(self) -> dict[str, RayJob]:
        """All jobs that were submitted, by their submission id."""
        found = self._decoded(_JOBS, *self._ask("GET", "jobs/"))
        return {job.submission_id: job for job in found if job.submission_id is not None}

    def job(self, submission_id: str) -> RayJob | None:
        """One job; None where Ray does not know it."""
        status, body = self._ask("GET", f"jobs/{quote(submission_id, safe='')}")
        return None if status == 404 else self._decoded(_JOB, status, body)

    def submit(self, request: Mapping[str, Any]) -> None:
        """Submit a job. Raises RayRefused for a request that Ray cannot understand.

        An id that is taken is answered with an internal error, as is much else: who submits looks the job up.
        """
        status, body = self._ask("POST", "jobs/", msgspec.json.encode(request))
        if status == 400:
            raise RayRefused(_last_line(body))
        self._check(status, body)

    def stop(self, submission_id: str) -> None:
        """Have a job told to stop; nothing where Ray does not know it."""
        status, body = self._ask("POST", f"jobs/{quote(submission_id, safe='')}/stop")
        if status != 404:
            self._check(status, body)

    def delete(self, submission_id: str) -> None:
        """Have a job that has ended forgotten; nothing where Ray does not know it."""
        status, body = self._ask("DELETE", f"jobs/{quote(submission_id, safe='')}")
        if status != 404:
            self._check(status, body)

    def put_package(self, name: str, content: bytes) -> None:
        """Keep a package in the head, for jobs whose `runtime_env` names it `gcs://NAME`."""
        self._check(*self._ask("PUT", f"packages/gcs/{quote(name, safe='')}", content, "application/octet-stream"))

    def _ask(
        self, method: str, path: str, content: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=self._answer_seconds, context=self._tls)
            if self._tls is not None
            else http.client.HTTPConnection(self._host, self._port, timeout=self._answer_seconds)
        )
        headers = {**self._headers, **({} if content is None else {"Content-Type": kind})}
        try:
            connection.request(method, f"{self._path}/api/{path}", content, headers)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise RayUnreachable(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if status in _NOT_ALLOWED:
            raise RayUnreachable(f"HTTP {status}: it wants another token")
        return status, body

    @staticmethod
    def _check(status: int, body: bytes) -> None:
        if status != 200:
            raise RayUnreachable(f"HTTP {status}: {_last_line(body)}")

    def _decoded(self, decoder: msgspec.json.Decoder[Any], status: int, body: bytes) -> Any:
        self._check(status, body)
        try:
            return decoder.decode(body)
        except msgspec.DecodeError as error:
            raise RayUnreachable(f"its answer is none of Ray's Jobs API: {error}") from None


def _last_line(body: bytes) -> str:
    """What an answer says: of a traceback, which may end with a full stop on a line of its own, the last line."""
    lines = [line.strip() for line in body.decode(errors="replace").splitlines() if len(line.strip()) > 1]
    return lines[-1][:500] if lines else "it says nothing more"
