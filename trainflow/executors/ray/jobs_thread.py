"""Calls Ray in a thread of its own: a head that does not answer keeps nothing waiting but jobs.

The calls are those of Ray's Jobs API, over plain HTTP: six, each one request and its answer.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from trainflow.errors import EngineError, describe
from trainflow.executors.ray.job_request import RayOptions, may_package, package_of, request_of, submission_id
from trainflow.messages.workload import AttemptKey, ExecuteTask
from trainflow.metadata.transaction_retries import is_own_fault

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


log = logging.getLogger(__name__)

#: how long calls that are left are waited for when the engine ends
_LAST_SECONDS = 5.0


class _Stop(NamedTuple):
    key: AttemptKey


class JobEvents(NamedTuple):
    """What is called in that thread."""

    #: a workload could not be submitted now, and why
    failed: Callable[[ExecuteTask, str], None]
    #: one never can be
    refused: Callable[[ExecuteTask, str], None]
    #: one was submitted
    taken: Callable[[ExecuteTask], None]
    #: the jobs there are, by submission id; those among the second that it does not name are unknown to Ray
    seen: Callable[[dict[str, RayJob], frozenset[str]], None]


class JobsThread:
    """Submits, stops and looks at jobs, one call after the other."""

    def __init__(self, client: RayJobsClient, options: RayOptions, grace_seconds: float, events: JobEvents) -> None:
        self._client = client
        self._options = options
        self._grace_seconds = grace_seconds
        self._events = events
        self._work: SimpleQueue[ExecuteTask | _Stop | None] = SimpleQueue()
        #: what is looked at
        self._known: set[str] = set()
        #: what is not waited for any more, and is to be deleted once it has ended
        self._left: set[str] = set()
        self._told = False
        self._looked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def submit(self, workload: ExecuteTask) -> None:
        """Submit a job; one of the events says how that went."""
        self._work.put(workload)

    def stop(self, key: AttemptKey) -> None:
        """Have a job told to stop."""
        self._work.put(_Stop(key))

    def watch(self, keys: frozenset[AttemptKey]) -> None:
        """Look at the jobs of these, and at none that is not among them; what has ended of others is deleted."""
        wanted = {submission_id(key) for key in keys}
        self._left |= self._known - wanted
        self._known = wanted

    def end(self) -> None:
        """Do what is left, for a while."""
        self._work.put(None)
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=self._options.poll_seconds)
            except Empty:
                self._look()
                continue
            if work is None:
                return
            if isinstance(work, _Stop):
                self._try_stop(submission_id(work.key))
            else:
                self._submit(work)
            if time.monotonic() - self._looked_at > self._options.poll_seconds:
                self._look()

    def _submit(self, workload: ExecuteTask) -> None:
        try:
            self._submit_once(workload)
        except RayRefused as error:
            self._events.refused(workload, str(error))
        except Exception as error:
            if is_own_fault(error):
                log.exception("a job cannot be submitted")
            self._events.failed(workload, f"Ray at {self._client.address} takes no jobs: {describe(error)}")
        else:
            self._events.taken(workload)

    def _submit_once(self, workload: ExecuteTask) -> None:
        """Submit a job that is not there yet. One that has ended without having been claimed is made anew."""
        job = submission_id(workload.key)
        package = package_of(workload) if may_package(self._options) else None
        request = request_of(workload, self._options, package, grace_seconds=self._grace_seconds)
        if package is not None:
            self._client.put_package(package.name, package.content)
        try:
            self._client.submit(request)
        except RayUnreachable:
            # an id that is taken and an answer that was lost look like any other outage
            found = self._client.job(job)
            if found is None:
                raise
            if found.has_ended:
                self._client.delete(job)
                self._client.submit(request)

    def _try_stop(self, job: str) -> None:
        try:
            self._client.stop(job)
        except RayUnreachable as error:
            # a worker that runs it is told so with its next heartbeat in any case
            log.info("Ray could not be told to stop job %s: %s", job, error)

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        known, left = frozenset(self._known), set(self._left)
        if not known and not left:
            return
        try:
            found = self._client.jobs()
            self._delete(left, found)
        except RayUnreachable as error:
            if not self._told:
                self._told = True
                log.warning("Ray at %s does not answer: %s; its attempts go on", self._client.address, error)
            return
        if self._told:
            self._told = False
            log.info("Ray at %s answers again", self._client.address)
        self._events.seen(found, known)

    def _delete(self, left: set[str], found: dict[str, RayJob]) -> None:
        for job in left:
            state = found.get(job)
            if state is None or state.has_ended:
                if state is not None:
                    self._client.delete(job)
                self._left.discard(job)
