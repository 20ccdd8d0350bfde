"""What the pods of several ranks mean for their attempt: the table of states, as a pure function."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.executors.kubernetes.pod import PodPlace
from trainflow.executors.kubernetes.pod_attempt import (
    SAYS_ITSELF_SECONDS,
    PodAttempt,
    RankLook,
    judge_ranks,
)
from trainflow.executors.kubernetes.pod_outcome import AttemptFacts, PodSummary, Step
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask, ProcessExit

WAITS = PodSummary(place=PodPlace("ml", "trainflow-a-0", "u"), nodes=3)
RUNS = replace(WAITS, phase="Running")
DONE = replace(RUNS, phase="Succeeded", code=0)
FAILED = replace(RUNS, phase="Failed", code=3, end_reason="Error")
EVICTED = replace(RUNS, phase="Failed", reason="Evicted", message="no room.")
OOM = replace(RUNS, rank=1, phase="Failed", code=137, end_reason="OOMKilled", node="n7", memory_limit="4Gi")
NO_NODE = replace(WAITS, waits_for="Unschedulable", waits="0/3 nodes are available.")
NEW = AttemptFacts(False, False, True, 0.0, 0.0, 60.0, 300.0)
BEGUN, REPORTED = NEW._replace(begun=True), NEW._replace(begun=True, reported=True)
LONG = SAYS_ITSELF_SECONDS
OUT_OF = "rank 1 of 3: pod trainflow-a-0 on node n7, memory limit 4Gi"
KILLED = ProcessExit(signal=9, out_of_memory=True, where=OUT_OF)


def looks(facts: AttemptFacts, *pods: PodSummary | None, bad_for: float = 0.0) -> dict[int, RankLook]:
    return {
        rank: RankLook(pod, facts, bad_for if pod is None or pod in (FAILED, EVICTED, OOM) else 0.0)
        for rank, pod in enumerate(pods)
    }


@pytest.mark.parametrize(
    ("seen", "step", "make", "exit"),
    [
        (looks(NEW, RUNS, RUNS, RUNS), Step.WAIT, (), None),
        # vanished before it began, whichever it is
        (looks(NEW, RUNS, None, RUNS), Step.MAKE, (1,), None),
        (looks(NEW, None, RUNS, None), Step.MAKE, (0, 2), None),
        (looks(NEW, RUNS, FAILED, RUNS), Step.END, (), "rank 1 of 3: its pod ended before it began: exit code 3"),
        # the first one says itself how it ended, and who ended it; where it cannot, its pod says so
        (looks(BEGUN, RUNS, FAILED, RUNS, bad_for=LONG - 1), Step.WAIT, (), None),
        (looks(BEGUN, RUNS, EVICTED, RUNS, bad_for=LONG - 1), Step.WAIT, (), None),
        (looks(BEGUN, RUNS, None, RUNS, bad_for=LONG - 1), Step.WAIT, (), None),
        (looks(BEGUN, RUNS, DONE, DONE, bad_for=LONG), Step.WAIT, (), None),
        (looks(BEGUN, RUNS, EVICTED, RUNS, bad_for=LONG), Step.END, (), "rank 1 of 3: its pod was evicted: no room"),
        (
            looks(BEGUN, RUNS, RUNS, None, bad_for=LONG),
            Step.END,
            (),
            "rank 2 of 3: its pod was deleted before it reported an outcome",
        ),
        (looks(BEGUN, RUNS, OOM, RUNS, bad_for=LONG), Step.END, (), KILLED),
        (looks(BEGUN, EVICTED, RUNS, RUNS), Step.END, (), "rank 0 of 3: its pod was evicted: no room"),
        (looks(BEGUN, DONE, DONE, DONE), Step.END, (), ProcessExit(code=0)),
        (looks(REPORTED, DONE, FAILED, None, bad_for=LONG), Step.OVER, (), None),
    ],
)
def test_pods_of_ranks_mean(
    seen: dict[int, RankLook], step: Step, make: tuple[int, ...], exit: str | ProcessExit | None
) -> None:
    verdict = judge_ranks(seen, 3)
    expected = ProcessExit(reason=exit) if isinstance(exit, str) else exit
    assert (verdict.step, verdict.make, verdict.exit) == (step, make, expected)


@pytest.mark.parametrize(
    ("pods", "told"),
    [
        ((RUNS, NO_NODE, RUNS), "rank 1 of 3: pod trainflow-a-0 waits: no node takes it (0/3 nodes are available)"),
        (
            (RUNS, NO_NODE, NO_NODE),
            "rank 1 of 3: pod trainflow-a-0 waits: no node takes it (0/3 nodes are available); "
            "1 more of its ranks wait",
        ),
        (
            (RUNS, RUNS, RUNS),
            "its ranks run and do not meet yet: can they reach the API server, and each other?",
        ),
    ],
)
def test_what_ranks_wait_for_is_told(pods: tuple[PodSummary, ...], told: str) -> None:
    assert judge_ranks(looks(NEW, *pods), 3).note == told


def test_rank_that_is_being_made_is_not_judged() -> None:
    workload = ExecuteTask(
        AttemptKey("a"), 1, "d", "r", "t", -1, DagSource("p.py"), "/p", "/p/.trainflow", "/a.log", nodes=3
    )
    attempt = PodAttempt(workload, 0.0)
    attempt.show(replace(RUNS, rank=1), 1.0)
    assert attempt.judge(1000.0, KubernetesOptions(), reported=False).step is Step.WAIT
    for each in attempt.ranks.values():
        each.pending = False
    assert attempt.judge(1000.0, KubernetesOptions(), reported=False).make == (0, 2)


def test_pod_of_same_name_that_was_made_before_is_not_missed() -> None:
    attempt = PodAttempt(None, 0.0)
    attempt.show(replace(RUNS, rank=1), 1.0)
    assert set(attempt.ranks) == {0, 1, 2}
    assert not attempt.miss(replace(RUNS, rank=1, place=PodPlace("ml", "trainflow-a-0", "older")))
    assert attempt.miss(replace(RUNS, rank=1))
    assert attempt.judge(2.0, KubernetesOptions(), reported=False).make == (1,)


def attempt_of_three(*pods: PodSummary) -> PodAttempt:
    workload = ExecuteTask(
        AttemptKey("a"), 1, "d", "r", "t", -1, DagSource("p.py"), "/p", "/p/.trainflow", "/a.log", nodes=3
    )
    attempt = PodAttempt(workload, 0.0)
    for rank, pod in enumerate(pods):
        attempt.show(replace(pod, rank=rank), 0.0)
    return attempt


@pytest.mark.parametrize("waits", [NO_NODE, WAITS])
def test_ranks_with_a_place_wait_so_long_for_the_others_and_give_it_back_for_as_long(waits: PodSummary) -> None:
    options = KubernetesOptions(places_seconds=60.0)
    attempt = attempt_of_three(RUNS, waits, RUNS)
    assert attempt.judge(0.0, options, reported=False).step is Step.WAIT
    assert attempt.judge(59.0, options, reported=False).step is Step.WAIT
    verdict = attempt.judge(60.0, options, reported=False)
    assert verdict.step is Step.GIVE_BACK
    assert verdict.note is not None
    assert verdict.note.startswith("rank 1 of 3: pod trainflow-a-0 waits")
    assert verdict.note.endswith(": its places are given back, and asked for again after 60 s")
    for rank in range(3):
        assert attempt.judge(121.0, options, reported=False).step is Step.WAIT
        attempt.miss(replace(RUNS, rank=rank))
    assert attempt.judge(119.0, options, reported=False).step is Step.WAIT
    assert attempt.judge(121.0, options, reported=False) == (Step.MAKE, None, None, (0, 1, 2))


def test_ranks_that_come_one_after_the_other_give_nothing_back() -> None:
    options = KubernetesOptions(places_seconds=60.0)
    attempt = attempt_of_three(RUNS, NO_NODE, RUNS)
    for now in range(0, 59, 10):
        assert attempt.judge(float(now), options, reported=False).step is Step.WAIT
    attempt.show(replace(RUNS, rank=1), 59.0)
    assert attempt.judge(59.0, options, reported=False).step is Step.WAIT
    for pods in ((NO_NODE, NO_NODE, NO_NODE), (RUNS, RUNS, RUNS)):
        nothing_wrong = attempt_of_three(*pods)
        assert [nothing_wrong.judge(now, options, reported=False).step for now in (0.0, 900.0)] == [Step.WAIT] * 2


def test_cause_of_the_end_of_a_rank_is_told_once() -> None:
    attempt = attempt_of_three(RUNS, OOM, replace(FAILED, code=143))
    cause = "rank 1 of 3: its container was killed because memory ran out (OOMKilled: "
    assert list(attempt.causes()) == [f"{cause}pod trainflow-a-0 on node n7, memory limit 4Gi)"]
    assert list(attempt.causes()) == []
