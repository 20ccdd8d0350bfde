"""Calls Ray in a thread of its own: a head that does not answer keeps nothing waiting but jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple

from trainflow.errors import describe
from trainflow.executors.ray.job_request import may_package, package_of, request_of, submission_id
from trainflow.executors.ray.jobs_client import RayJob, RayJobsClient, RayRefused, RayUnreachable
from trainflow.executors.ray.options import RayOptions
from trainflow.messages.workload import AttemptKey, ExecuteTask
from trainflow.metadata.transaction_retries import is_own_fault

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
