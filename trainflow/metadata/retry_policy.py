"""Decide what becomes of a task instance when an attempt ends without success. Pure.

Two budgets. An attempt that failed by its own fault uses up a try (`retries`). One that infrastructure lost (killed
worker, lost pod, restarted engine) does not; only when that happens `lost_attempts` times in a row without an attempt
coming to an end of its own does the task instance fail, so that a task that is killed each time does not run for ever.

Both begin anew when an attempt has saved more rows of its split than any before it, however it ended: what dies at the
same row each time fails for good, what gets further goes on. One that was preempted uses up neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from trainflow.identifiers import attempt_time
from trainflow.serialization.document import RetryDocument
from trainflow.states import TaskInstanceState

#: no delay is longer, whatever the multiplier makes of it
LONGEST_DELAY = timedelta(days=1)

#: a run lets an earlier task run again at most so often
MOST_RESTARTS = 3

#: how long a wait that cannot be taken up is left as it is before its task starts over, each time that this happens one
#: after another. The first one is over at once: it was begun by another build. Where it happens again, worker and
#: triggerer run different code, as they do while a fleet is brought to another version
START_OVER_PAUSES = tuple(timedelta(seconds=seconds) for seconds in (0, 10, 60, 300, 900))


class RetryCounts(NamedTuple):
    """What a task instance has behind it. `advanced`: this attempt saved more of the split than any before it."""

    failures: int
    max_tries: int
    lost: int
    advanced: bool = False


class RetryDecision(NamedTuple):
    """Where it goes, and what it has behind it then."""

    state: TaskInstanceState
    failures: int
    lost: int
    retry_at: datetime | None = None


def after_failure(
    counts: RetryCounts, retry: RetryDocument, *, retryable: bool, now: datetime, identity: str
) -> RetryDecision:
    """The attempt failed by its own fault."""
    failures = counts.failures + 1
    if retryable and counts.advanced:
        return RetryDecision(TaskInstanceState.UP_FOR_RETRY, 0, 0, now + retry_delay(retry, 1, identity))
    if not retryable or failures > counts.max_tries:
        return RetryDecision(TaskInstanceState.FAILED, failures, 0)
    return RetryDecision(TaskInstanceState.UP_FOR_RETRY, failures, 0, now + retry_delay(retry, failures, identity))


def after_loss(counts: RetryCounts, limit: int) -> RetryDecision:
    """The attempt was lost through no fault of its own."""
    if counts.advanced:
        return RetryDecision(TaskInstanceState.SCHEDULED, 0, 0)
    lost = counts.lost + 1
    if lost >= limit:
        return RetryDecision(TaskInstanceState.FAILED, counts.failures, lost)
    return RetryDecision(TaskInstanceState.SCHEDULED, counts.failures, lost)


def after_preemption(counts: RetryCounts) -> RetryDecision:
    """The attempt was told to stop and did: it goes again at once."""
    if counts.advanced:
        return RetryDecision(TaskInstanceState.SCHEDULED, 0, 0)
    return RetryDecision(TaskInstanceState.SCHEDULED, counts.failures, counts.lost)


def restart_refusal(task_id: str, restart: str | None, again: Collection[str], times: int) -> str | None:
    """Why a task may not have `restart` run again, with all that follows it (`again`), when its run has done so `times`
    times; None when it may."""
    if restart is None or task_id not in again:
        return f"'{task_id}' does not follow '{restart}', which was to run again"
    if times >= MOST_RESTARTS:
        return f"'{restart}' ran again {times} times for it in this run, which is given up: it never comes to rest"
    return None


def pause_before_start_over(times: int) -> timedelta | None:
    """How long a task whose wait cannot be taken up waits before it starts over, which it has done so many times; None:
    it fails."""
    return START_OVER_PAUSES[times] if times < len(START_OVER_PAUSES) else None


def has_advanced(saved_rows: int | None, credited_rows: int | None) -> bool:
    """Whether more rows are saved than when the budgets last began anew."""
    return (saved_rows or 0) > (credited_rows or 0)


def cleared_at(attempts: Iterable[str | None], before: Iterable[datetime | None], now: datetime) -> datetime:
    """The moment of a clearing: after each of the `attempts` there were, and after the clearings `before` it, whatever
    the clock of who clears says. What those have saved is not gone on from."""
    made = (attempt_time(each) for each in attempts if each is not None)
    later = (each + timedelta(milliseconds=1) for each in made if each is not None)
    return max([now, *later, *(each for each in before if each is not None)])


def retry_delay(retry: RetryDocument, failures: int, identity: str) -> timedelta:
    """How long to wait after failure number `failures`: Airflow's rule.

    With a multiplier m: `delay · m^(failures-1)`, plus up to as much again, decided by a digest of `identity`: task
    instances that failed together do not come back together, and the same one always waits the same time.
    """
    longest = LONGEST_DELAY
    if retry.max_delay_seconds is not None:
        longest = min(longest, timedelta(seconds=retry.max_delay_seconds))
    seconds = retry.delay_seconds
    if retry.multiplier:
        try:
            seconds *= retry.multiplier ** (failures - 1)
        except OverflowError:
            return longest
        fraction = int.from_bytes(hashlib.sha1(f"{identity}#{failures}".encode()).digest()[:4]) / 2**32
        seconds *= 1 + fraction
    return min(timedelta(seconds=min(seconds, longest.total_seconds())), longest)
