"""What the state of a Ray job means for its attempt."""

from __future__ import annotations

import pytest

from trainflow.executors.ray.executor import JobJudgement, judge
from trainflow.executors.ray.jobs_thread import RayJob
from trainflow.messages.workload import ProcessExit

WAITS = "Job has not started yet. It may be waiting for resources (CPUs, GPUs, …) to become available."
FAILED = (
    "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
    "2026-11-30 07:59:21,284\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
    "loading\nerror: the project is not there\nRunning entrypoint for job a-0: exec trainflow execute-workload\n"
)


def lost(reason: str, *, delivered: bool = True) -> JobJudgement:
    return JobJudgement(exit=ProcessExit(reason=reason, delivered=delivered))


@pytest.mark.parametrize(
    ("job", "begun", "reported", "verdict"),
    [
        # a head that was restarted: what has begun may live, what has not is submitted again
        (None, True, False, JobJudgement()),
        (None, False, False, JobJudgement(again=True)),
        (RayJob("PENDING", message=WAITS), False, False, JobJudgement(note=f"Ray has not started it: {WAITS}")),
        (RayJob("RUNNING"), False, False, JobJudgement()),
        (RayJob("RUNNING"), True, False, JobJudgement()),
        (RayJob("SUCCEEDED"), True, False, JobJudgement()),
        (RayJob("SUCCEEDED"), True, True, JobJudgement()),
        (
            RayJob("SUCCEEDED"),
            False,
            False,
            lost("its Ray job has ended, and nothing has begun it: see the job's log"),
        ),
        (RayJob("STOPPED"), True, True, JobJudgement()),
        (RayJob("STOPPED"), True, False, lost("its Ray job was stopped")),
        (RayJob("STOPPED"), False, False, lost("its Ray job was stopped", delivered=False)),
        (RayJob("FAILED", message=FAILED), True, True, JobJudgement()),
        (
            RayJob("FAILED", message=FAILED),
            True,
            False,
            lost("its Ray job failed: Job entrypoint command failed with exit code 1: error: the project is not there"),
        ),
        (
            RayJob("FAILED", message="Job supervisor actor failed to start within 900.0 seconds."),
            False,
            False,
            lost("its Ray job failed: Job supervisor actor failed to start within 900.0 seconds."),
        ),
        (RayJob("FAILED"), False, False, lost("its Ray job failed: it does not say why")),
        # a state that Ray may have one day
        (RayJob("SUSPENDED"), False, False, JobJudgement()),
    ],
)
def test_judge(job: RayJob | None, begun: bool, reported: bool, verdict: JobJudgement) -> None:
    assert judge(job, lambda: begun, lambda: reported) == verdict


@pytest.mark.parametrize(("begun", "told"), [(False, True), (True, False)])
def test_job_whose_ranks_have_not_met_says_so(begun: bool, told: bool) -> None:
    note = judge(RayJob("RUNNING"), lambda: begun, lambda: False, nodes=4).note
    assert (note is not None and "its 4 ranks have not met yet" in note) is told
