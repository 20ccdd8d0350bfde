"""What the state of a Ray job means for its attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trainflow.executors.ray.jobs_client import RayJob
from trainflow.messages.workload import ProcessExit


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
