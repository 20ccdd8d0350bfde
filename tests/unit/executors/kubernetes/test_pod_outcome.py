"""The table of states of pods."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from trainflow.executors.kubernetes.pod import PodPlace
from trainflow.executors.kubernetes.pod_outcome import AttemptFacts, PodSummary, Step, exit_of, judge
from trainflow.messages.workload import ProcessExit
from trainflow.metadata.exit_judgement import judge_exit

POD = PodSummary(place=PodPlace("ml", "trainflow-a-0", "u"))
RUNS = replace(POD, phase="Running")
PULLS = replace(POD, waits_for="ImagePullBackOff", waits='Back-off pulling image "x"')
NO_SECRET = replace(POD, waits_for="CreateContainerConfigError", waits='secret "trainflow-a-0" not found')
FACTS = AttemptFacts(False, False, True, 0.0, 0.0, 60.0, 300.0)
NEW, BEGUN, REPORTED = FACTS._replace(seen=False), FACTS._replace(begun=True), FACTS._replace(begun=True, reported=True)


@pytest.mark.parametrize(
    ("pod", "facts", "step", "exit"),
    [
        (None, NEW, Step.WAIT, None),
        (None, NEW._replace(asked_for=60.0), Step.MAKE, None),
        (None, FACTS, Step.MAKE, None),
        (None, BEGUN, Step.END, ProcessExit(reason="its pod was deleted before it reported an outcome")),
        (None, BEGUN._replace(seen=False, asked_for=999.0), Step.WAIT, None),
        (None, REPORTED, Step.OVER, None),
        (POD, FACTS, Step.WAIT, None),
        (RUNS, FACTS, Step.WAIT, None),
        (RUNS, BEGUN, Step.WAIT, None),
        (replace(RUNS, phase="Unknown"), BEGUN, Step.WAIT, None),
        (replace(RUNS, deleting=True), BEGUN, Step.WAIT, None),
        (RUNS, REPORTED, Step.OVER, None),
        (replace(RUNS, phase="Succeeded", code=0), REPORTED, Step.OVER, None),
        (replace(RUNS, phase="Succeeded", code=0), BEGUN, Step.END, ProcessExit(code=0)),
        (replace(RUNS, phase="Failed", code=3, end_reason="Error"), BEGUN, Step.END, ProcessExit(code=3)),
        (replace(RUNS, code=0), BEGUN, Step.END, ProcessExit(code=0)),  # another container goes on
        (PULLS, FACTS._replace(hopeless_for=299.0), Step.WAIT, None),
        (NO_SECRET, FACTS, Step.WAIT, None),
        (NO_SECRET, FACTS._replace(asked_for=60.0, hopeless_for=300.0), Step.MAKE, None),
        (
            replace(NO_SECRET, waits='secret "registry" not found'),
            FACTS._replace(asked_for=60.0, hopeless_for=300.0),
            Step.END,
            ProcessExit(
                reason="its pod never ran: pod trainflow-a-0 waits: what its container needs is not there "
                '(secret "registry" not found)',
                refused=True,
            ),
        ),
        (
            PULLS,
            FACTS._replace(hopeless_for=300.0),
            Step.END,
            ProcessExit(
                reason="its pod never ran: pod trainflow-a-0 waits: its image cannot be pulled "
                '(Back-off pulling image "x")',
                refused=True,
            ),
        ),
        (
            replace(POD, phase="Failed", code=127, end_reason="Error", end_message="sh: trainflow: not found\n"),
            FACTS,
            Step.END,
            ProcessExit(reason="its pod ended before it began: exit code 127: sh: trainflow: not found"),
        ),
        (
            replace(POD, phase="Failed", code=128, end_reason="StartError", end_message='exec: "x": no such file'),
            FACTS,
            Step.END,
            ProcessExit(reason='its pod ended before it began: exit code 128, StartError: exec: "x": no such file'),
        ),
        (
            replace(POD, phase="Succeeded", code=0),
            FACTS,
            Step.END,
            ProcessExit(reason="its pod ended before it began: exit code 0"),
        ),
        (
            replace(POD, phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource"),
            FACTS,
            Step.END,
            ProcessExit(reason="its pod ended before it began: OutOfcpu: Node didn't have enough resource"),
        ),
    ],
)
def test_judge(pod: PodSummary | None, facts: AttemptFacts, step: Step, exit: ProcessExit | None) -> None:
    verdict = judge(pod, facts)
    assert (verdict.step, verdict.exit) == (step, exit)


@pytest.mark.parametrize(
    ("pod", "note"),
    [
        (POD, "pod trainflow-a-0 waits"),
        (
            replace(POD, waits_for="Unschedulable", waits="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            "pod trainflow-a-0 waits: no node takes it (0/3 nodes are available: 3 Insufficient nvidia.com/gpu)",
        ),
        (NO_SECRET, "pod trainflow-a-0 waits: the Secret with its workload is being made"),
        (replace(POD, waits_for="ContainerCreating"), "pod trainflow-a-0 waits: its container is being made"),
        (replace(POD, waits_for="SomethingNew"), "pod trainflow-a-0 waits: SomethingNew"),
        (replace(RUNS, deleting=True), "pod trainflow-a-0 is being deleted"),
        (RUNS, "pod trainflow-a-0 runs and has not claimed it yet: can it reach the API server?"),
    ],
)
def test_judge_says_why_a_pod_waits(pod: PodSummary, note: str) -> None:
    assert judge(pod, FACTS).note == note


ENDED = replace(RUNS, phase="Failed", code=137, end_reason="Error")


@pytest.mark.parametrize(
    ("pod", "lost", "message"),
    [
        (replace(ENDED, end_reason="OOMKilled"), False, "the kernel killed the process because memory ran out"),
        (ENDED, True, "the process was killed (SIGKILL) before it reported an outcome"),
        (replace(ENDED, code=143), True, "the process was killed (SIGTERM) before it reported an outcome"),
        (replace(ENDED, code=139), False, "the process crashed (SIGSEGV)"),
        (replace(ENDED, code=1), False, "the process ended with exit code 1 without reporting an outcome"),
        (replace(ENDED, code=255), False, "the process ended with exit code 255 without reporting an outcome"),
        (replace(ENDED, code=0, phase="Succeeded"), False, "ended with exit code 0 without reporting an outcome"),
        (replace(ENDED, code=None, phase="Succeeded"), False, "ended with exit code 0 without reporting an outcome"),
        (
            replace(ENDED, code=None, reason="Evicted", message="The node was low on resource: memory."),
            True,
            "its pod was evicted: The node was low on resource: memory",
        ),
        (
            replace(ENDED, disrupted="DeletionByTaintManager", message="node is unreachable"),
            True,
            "the node of its pod was lost or shut down: node is unreachable",
        ),
        (replace(ENDED, reason="NodeLost", code=None), True, "the node of its pod was lost or shut down"),
        (replace(ENDED, disrupted="PreemptionByScheduler"), True, "the cluster ended its pod (PreemptionByScheduler)"),
        (replace(ENDED, code=None, reason="SomethingNew", message="why"), True, "SomethingNew: why"),
    ],
)
def test_end_of_pod_in_words(pod: PodSummary, lost: bool, message: str) -> None:
    judged = judge_exit(exit_of(pod))
    assert (judged.lost, message in judged.message) == (lost, True), judged.message


def test_refusal_fails_an_attempt_that_has_not_begun() -> None:
    judged = judge_exit(ProcessExit(reason="no such image", refused=True))
    assert (judged.lost, judged.refused, judged.message) == (False, True, "no such image")
