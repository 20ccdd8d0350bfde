"""What becomes of a task instance after an attempt that did not succeed."""

from __future__ import annotations

import errno
import signal
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.identifiers import new_attempt_id
from trainflow.messages.workload import ProcessExit
from trainflow.metadata.exit_judgement import judge_exit
from trainflow.metadata.retry_policy import (
    LONGEST_DELAY,
    RetryCounts,
    RetryDecision,
    after_failure,
    after_loss,
    after_preemption,
    cleared_at,
    has_advanced,
    retry_delay,
)
from trainflow.observability.resource_exhaustion import UNHEARD, exit_code_of
from trainflow.serialization.document import RetryDocument
from trainflow.states import TaskInstanceState

T = TaskInstanceState
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RETRY = RetryDocument(retries=2, delay_seconds=10.0)


@pytest.mark.parametrize(
    ("counts", "retryable", "expected"),
    [
        (RetryCounts(0, 0, 0), True, RetryDecision(T.FAILED, 1, 0)),
        (RetryCounts(0, 2, 0), True, RetryDecision(T.UP_FOR_RETRY, 1, 0, NOW + timedelta(seconds=10))),
        (RetryCounts(1, 2, 0), True, RetryDecision(T.UP_FOR_RETRY, 2, 0, NOW + timedelta(seconds=10))),
        (RetryCounts(2, 2, 0), True, RetryDecision(T.FAILED, 3, 0)),
        # FailException: whatever is left
        (RetryCounts(0, 2, 0), False, RetryDecision(T.FAILED, 1, 0)),
        # it came to an end of its own: what infrastructure lost before is forgotten
        (RetryCounts(0, 2, 7), True, RetryDecision(T.UP_FOR_RETRY, 1, 0, NOW + timedelta(seconds=10))),
        # it saved more than ever before: both budgets begin anew, whatever was left of them
        (RetryCounts(0, 0, 0, True), True, RetryDecision(T.UP_FOR_RETRY, 0, 0, NOW + timedelta(seconds=10))),
        (RetryCounts(2, 2, 7, True), True, RetryDecision(T.UP_FOR_RETRY, 0, 0, NOW + timedelta(seconds=10))),
        (RetryCounts(2, 2, 7, True), False, RetryDecision(T.FAILED, 3, 0)),
    ],
)
def test_failures_use_up_tries(counts: RetryCounts, retryable: bool, expected: RetryDecision) -> None:
    assert after_failure(counts, RETRY, retryable=retryable, now=NOW, identity="d#t#r") == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (RetryCounts(0, 0, 0), RetryDecision(T.SCHEDULED, 0, 1)),
        (RetryCounts(1, 2, 1), RetryDecision(T.SCHEDULED, 1, 2)),
        (RetryCounts(0, 5, 2), RetryDecision(T.FAILED, 0, 3)),
        (RetryCounts(1, 5, 2, True), RetryDecision(T.SCHEDULED, 0, 0)),
    ],
)
def test_losses_have_budget_of_their_own(counts: RetryCounts, expected: RetryDecision) -> None:
    assert after_loss(counts, limit=3) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (RetryCounts(0, 0, 0), RetryDecision(T.SCHEDULED, 0, 0)),
        (RetryCounts(2, 2, 2), RetryDecision(T.SCHEDULED, 2, 2)),
        (RetryCounts(2, 2, 2, True), RetryDecision(T.SCHEDULED, 0, 0)),
    ],
)
def test_preemption_uses_up_nothing(counts: RetryCounts, expected: RetryDecision) -> None:
    assert after_preemption(counts) == expected


@pytest.mark.parametrize(
    ("saved", "credited", "expected"),
    [(None, None, False), (0, None, False), (1, None, True), (1, 1, False), (2, 1, True), (1, 2, False)],
)
def test_progress_counts_only_beyond_furthest(saved: int | None, credited: int | None, expected: bool) -> None:
    assert has_advanced(saved, credited) is expected


@given(st.integers(0, 3), st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40))
def test_retry_at_same_row_fails_and_beyond_goes_on(retries: int, attempts: list[tuple[bool, int]]) -> None:
    """Each attempt saves so many rows more (or none) and dies: it is the attempts in a row without any that count."""
    counts, saved, credited, idle = RetryCounts(0, retries, 0), 0, 0, 0
    for failed, more in attempts:
        saved += more
        counts = counts._replace(advanced=has_advanced(saved, credited))
        credited = saved
        if failed:
            verdict = after_failure(counts, RETRY, retryable=True, now=NOW, identity="x")
            idle = 0 if more else idle + 1
        else:
            verdict = after_loss(counts, limit=1_000)
            idle = 0 if more else idle
        assert (verdict.state is T.FAILED) == (idle > retries)
        if verdict.state is T.FAILED:
            return
        counts = RetryCounts(verdict.failures, retries, verdict.lost)


@pytest.mark.parametrize("failures", [1, 2, 9])
def test_delay_without_multiplier_is_constant(failures: int) -> None:
    assert retry_delay(RETRY, failures, "x") == timedelta(seconds=10)


@pytest.mark.parametrize(("failures", "base"), [(1, 10), (2, 20), (3, 40), (4, 80), (7, 640)])
def test_backoff_is_within_once_and_twice_power(failures: int, base: float) -> None:
    retry = RetryDocument(retries=9, delay_seconds=10.0, multiplier=2.0)
    delays = {retry_delay(retry, failures, f"d#t#run{number}") for number in range(50)}
    assert all(timedelta(seconds=base) <= delay < timedelta(seconds=2 * base) for delay in delays)
    # those that failed together do not come back together
    assert len(delays) == 50


def test_jitter_is_function_of_task_instance() -> None:
    """The digest is pinned: every process of every version must wait alike."""
    retry = RetryDocument(retries=9, delay_seconds=10.0, multiplier=2.0)
    assert retry_delay(retry, 1, "d#t#r") == retry_delay(retry, 1, "d#t#r")
    assert retry_delay(retry, 1, "d#t#r").total_seconds() == 10.481041


@pytest.mark.parametrize(
    ("retry", "failures", "expected"),
    [
        (RetryDocument(delay_seconds=10, multiplier=2, max_delay_seconds=30), 3, timedelta(seconds=30)),
        (RetryDocument(delay_seconds=100, max_delay_seconds=30), 1, timedelta(seconds=30)),
        (RetryDocument(delay_seconds=300, multiplier=2), 1000, LONGEST_DELAY),
        (RetryDocument(delay_seconds=1, multiplier=1e300), 5000, LONGEST_DELAY),
        (RetryDocument(delay_seconds=7 * 86400), 1, LONGEST_DELAY),
        (RetryDocument(delay_seconds=0), 5, timedelta()),
    ],
)
def test_delay_is_at_most_the_longest_allowed(retry: RetryDocument, failures: int, expected: timedelta) -> None:
    assert retry_delay(retry, failures, "x") == expected


@given(
    delay=st.floats(0, 1e6),
    multiplier=st.floats(0, 1e9),
    longest=st.none() | st.floats(0, 1e6),
    failures=st.integers(1, 10_000),
)
def test_delay_is_never_negative(delay: float, multiplier: float, longest: float | None, failures: int) -> None:
    retry = RetryDocument(delay_seconds=delay, multiplier=multiplier, max_delay_seconds=longest)
    limit = LONGEST_DELAY if longest is None else min(LONGEST_DELAY, timedelta(seconds=longest))
    assert timedelta() <= retry_delay(retry, failures, "x") <= limit


@pytest.mark.parametrize(
    ("attempts", "before", "expected"),
    [
        ([], [], 0),
        ([None], [None], 0),
        ([-60_000], [], 0),
        ([60_000, None, -1], [None], 60_001),
        ([], [60_000], 60_000),
        ([5], [60_000], 60_000),
    ],
)
def test_clearing_is_after_all_there_was(attempts: list[int | None], before: list[int | None], expected: int) -> None:
    """In milliseconds from the clock of who clears."""

    def moment(number: int) -> datetime:
        return NOW + timedelta(milliseconds=number)

    names = [None if each is None else new_attempt_id(moment(each)) for each in attempts]
    earlier = [None if each is None else moment(each) for each in before]
    assert cleared_at(names, earlier, NOW) == moment(expected)


@pytest.mark.parametrize(
    ("exit", "lost", "says"),
    [
        (ProcessExit(code=0), False, "exit code 0 without reporting an outcome"),
        (ProcessExit(code=1), False, "exit code 1 without"),
        (ProcessExit(code=70), False, "broke outside of the task's own function"),
        # what ran out outside of the task's own code is none of its faults
        (ProcessExit(code=exit_code_of(MemoryError(), 70)), True, "could not go on: memory ran out"),
        (ProcessExit(code=exit_code_of(OSError(errno.ENOSPC, "x"), 70)), True, "could not go on: the disk is full"),
        (ProcessExit(signal=signal.SIGKILL), True, "killed (SIGKILL)"),
        (ProcessExit(signal=signal.SIGTERM), True, "killed (SIGTERM)"),
        (ProcessExit(signal=signal.SIGINT), True, "killed (SIGINT)"),
        (ProcessExit(signal=signal.SIGHUP), True, "killed (SIGHUP)"),
        # its own crash is its own fault: trying again as often as it is lost would never end well
        (ProcessExit(signal=signal.SIGSEGV), False, "crashed (SIGSEGV)"),
        (ProcessExit(signal=signal.SIGABRT), False, "crashed (SIGABRT)"),
        (ProcessExit(signal=63), False, "crashed (signal 63)"),
        (ProcessExit(signal=signal.SIGKILL, out_of_memory=True), False, "memory ran out"),
        (ProcessExit(reason="the node went away"), True, "the node went away"),
        (ProcessExit(code=UNHEARD), True, "no engine answered it"),
        (ProcessExit(signal=signal.SIGTERM, stopped=True), True, "was told to stop"),
        # it did not stop in time, or of itself
        (ProcessExit(signal=signal.SIGKILL, stopped=True), True, "killed (SIGKILL)"),
        (ProcessExit(signal=signal.SIGSEGV, stopped=True), False, "crashed (SIGSEGV)"),
    ],
)
def test_end_without_word_is_never_success(exit: ProcessExit, lost: bool, says: str) -> None:
    judgement = judge_exit(exit)
    assert judgement.lost is lost
    assert says in judgement.message
