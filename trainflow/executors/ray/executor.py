"""`type = "ray"`: hand attempts to a Ray cluster as jobs, and what the state of a job means for its
attempt. See the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple, Self

from trainflow.executors.executor import ExecutorHost, InFlightAttempt
from trainflow.executors.ray.job_request import RayOptions, ray_options, submission_id
from trainflow.executors.ray.jobs_thread import JobEvents, JobsThread, RayJob, RayJobsClient
from trainflow.executors.remote import RemoteExecutor
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit


class RayExecutor(RemoteExecutor):
    """Attempts as Ray jobs."""

    tells_later: ClassVar[bool] = True

    def __init__(self, options: RayOptions) -> None:
        super().__init__()
        self._options = options
        self._jobs: JobsThread | None = None
        #: attempts whose job Ray has taken
        self._submitted: set[AttemptKey] = set()
        self._noted: dict[AttemptKey, str | None] = {}

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        return cls(ray_options(name, options))

    def start(self, host: ExecutorHost) -> None:
        super().start(host)
        options = self._options
        client = RayJobsClient(options.address, token=options.token, ca_file=options.ca_file)
        soon = host.reactor.call_soon
        events = JobEvents(
            failed=lambda workload, reason: soon(lambda: self.not_delivered(workload, reason)),
            refused=lambda workload, reason: soon(lambda: self._refused(workload, reason)),
            taken=lambda workload: soon(lambda: self._taken(workload)),
            seen=lambda jobs, known: soon(lambda: self._seen(jobs, known)),
        )
        self._jobs = JobsThread(client, options, host.settings.engine.stop_grace_seconds, events)

    def deliver(self, workload: ExecuteTask) -> None:
        assert self._jobs is not None
        self._jobs.submit(workload)

    def withdraw(self, key: AttemptKey) -> None:
        assert self._jobs is not None
        self._jobs.stop(key)

    def sync(self) -> None:
        """Say which jobs are looked at. None is delivered again because time has passed: Ray says how each of them
        is."""
        assert self._jobs is not None
        self._submitted &= self._delivered.keys()
        self._noted = {key: note for key, note in self._noted.items() if key in self._delivered}
        self._jobs.watch(frozenset(self._submitted))

    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        lost = super().adopt(attempts)
        self._submitted |= self._delivered.keys()
        for key in lost:
            # they are made anew: what is queued for them at Ray takes no place
            self.withdraw(key)
        return lost

    def end(self, grace: timedelta) -> None:
        if self._jobs is not None:
            self._jobs.end()
        super().end(grace)

    # -- what Ray says ---------------------------------------------------------------------------------------------

    def _taken(self, workload: ExecuteTask) -> None:
        if workload.key in self._delivered:
            self._submitted.add(workload.key)
        self.delivered_again(workload)

    def _refused(self, workload: ExecuteTask, reason: str) -> None:
        """Give up one that Ray does not understand: the others may be better."""
        self.forget(workload.key, ProcessExit(reason=f"Ray refused its job: {reason}", refused=True))

    def _seen(self, jobs: Mapping[str, RayJob], known: frozenset[str]) -> None:
        for key in list(self._submitted & self._delivered.keys()):
            if submission_id(key) in known:
                self._judge(key, jobs.get(submission_id(key)))

    def _judge(self, key: AttemptKey, job: RayJob | None) -> None:
        host = self._host
        workload = self._delivered[key].workload
        nodes = workload.nodes if workload is not None else 1
        verdict = judge(job, lambda: host.has_begun(key), lambda: host.has_reported(key), nodes=nodes)
        if self._noted.get(key) != verdict.note:
            self._noted[key] = verdict.note
            host.note(key, verdict.note)
        if verdict.exit is not None:
            self.forget(key, verdict.exit)
        elif verdict.again and workload is not None:
            self._submitted.discard(key)
            self.deliver(workload)


class JobJudgement(NamedTuple):
    """What is to be done: `again` submits it once more, `exit` gives it up, `note` is what it waits for."""

    again: bool = False
    exit: ProcessExit | None = None
    note: str | None = None


def judge(
    job: RayJob | None, has_begun: Callable[[], bool], has_reported: Callable[[], bool], *, nodes: int = 1
) -> JobJudgement:
    """`job`: None where Ray does not know it: its head was restarted. `nodes`: how many ranks its workload has.

    One that has begun and that Ray has forgotten may live: its heartbeats say so, or do not.
    """
    if job is None:
        return JobJudgement(again=not has_begun())
    if job.status == "PENDING":
        return JobJudgement(note=f"Ray has not started it: {job.message or 'it does not say why'}")
    if nodes > 1 and not job.has_ended and not has_begun():
        return JobJudgement(
            note=f"its Ray job runs, and its {nodes} ranks have not met yet: they may wait for places on as many nodes"
        )
    if not job.has_ended or has_reported():
        return JobJudgement()
    if job.status == "STOPPED":
        return JobJudgement(exit=ProcessExit(reason="its Ray job was stopped", delivered=has_begun()))
    if job.status == "SUCCEEDED":
        # it has delivered the outcome, or another process has the attempt; where none has, nothing ran it
        if has_begun():
            return JobJudgement()
        return JobJudgement(
            exit=ProcessExit(reason="its Ray job has ended, and nothing has begun it: see the job's log")
        )
    return JobJudgement(exit=ProcessExit(reason=f"its Ray job failed: {_one_line(job.message)}"))


def _one_line(message: str | None) -> str:
    """What Ray says, and the last line of the job in the log that it puts below: its own lines come in between."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip() and not _of_ray(line)]
    if not lines:
        return "it does not say why"
    first = lines[0].partition(", last available logs")[0]
    return first[:300] if len(lines) == 1 else f"{first[:300]}: {lines[-1][:300]}"


def _of_ray(line: str) -> bool:
    return line.startswith("Running entrypoint for job ") or " job_manager.py:" in line
