"""Moments that were written down, and clocks that differ or are set: when is something due?

A clock of the day may be set by a day, forward or back, and the clocks of two hosts differ. So nothing here is decided
by comparing a moment that was written with the time of the day alone:

- leases of engines, schedulers and triggerers: a counter that does not rise while the observer's own monotonic clock
  runs (`metadata.queries.service_queries`),
- retries and reschedules: due, or the clock was set back behind the moment at which it was written
  (`metadata.queries.task_queries.due`),
- deliveries that are tried again: `is_pending`: no further away than the longest delay there is,
- queued runs: `run_after` has come, or had come when the run was queued (`metadata.queries.queued_run_queries`),
- time-outs of deferrals, runs (`dagrun_timeout`) and sensors, TimeDeltaTrigger: `seconds_left` when first seen, from
  then on a monotonic clock (`MonotonicDeadlines`). A process that is started anew sees them for the first time, and
  knows of the time before by the time of the day alone: a clock that was set back meanwhile gives them all of their
  time again and no more; one that was set forward by as much ends a run at once, and a deferral after one look,
- what attempts on other hosts say: seconds, never a moment; what they decide goes by the control plane's time, from the
  claim on (`counting_clock`),
- polling, watchdogs, outages, `execution_timeout`, grace to stop: a monotonic clock alone,
- kills for want of memory: a counter that was read when the attempt was launched (`observability.oom_kills`),
- what a task tells the trigger that waits for it (PartitionTrigger): seconds, for it may wait on another host,
- `run_after` in the future, DateTimeTrigger, the end of a table: the time of the day, since they mean a moment of the
  calendar,
- ages of files, the gap policy, sweeps: the store's clock against ours; who wrote a file is not known,
- what people are shown (`status`, `why`): the time of the day, leases with `TOLERANCE`.

What begins or goes on is early rather than never; what ends something living is late rather than early.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from trainflow.clock import Clock, MeasuredClock

#: clocks of hosts that work together differ by less; a clock that was set back by less delays by no more than that
TOLERANCE = timedelta(minutes=1)

#: pauses before a delivery is tried again, the first and the longest: a server that cannot be reached is asked this
#: often at least, and each try starts a process that imports MLflow for ~2 s
_FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 5.0, 300.0
LONGEST_BACKOFF = timedelta(seconds=LONGEST_BACKOFF_SECONDS)

#: what looks at everything does so this often at least, however long it took
LONGEST_PAUSE_SECONDS = 60.0

K = TypeVar("K", bound=Hashable)


def is_pending(due: datetime, longest: timedelta, now: datetime) -> bool:
    """Whether something that waits for `longest` at most still waits for `due`; not when that is further away."""
    return now < due <= now + longest + TOLERANCE


def seconds_left(since: datetime, seconds: float, now: datetime) -> float:
    """What is left of `seconds` that began at `since`: never less than none, never more than all."""
    return min(max(seconds - (now - since).total_seconds(), 0.0), seconds)


class MonotonicDeadlines(Generic[K]):
    """What is to end after a while, by a monotonic clock from when it is first seen: a clock of the day that is set
    neither ends everything at once nor keeps it for a day."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: dict[K, float] = {}
        #: ends, soonest first; those that were stopped or begun anew are dropped when they come up
        self._queue: list[tuple[float, K]] = []

    def begin(self, key: K, seconds: float) -> None:
        """Let it run for so long, if it does not run yet."""
        if key not in self._ends:
            self._ends[key] = self._clock.monotonic() + seconds
            heapq.heappush(self._queue, (self._ends[key], key))

    def stop(self, key: K) -> None:
        """Forget a deadline."""
        self._ends.pop(key, None)

    def clear(self) -> None:
        """Stop all."""
        self._ends.clear()
        self._queue.clear()

    def take_over(self) -> list[K]:
        """What has run out since this was asked last and was not stopped, soonest first."""
        over: list[K] = []
        while (left := self.seconds_left) is not None and left <= 0:
            over.append(heapq.heappop(self._queue)[1])
            del self._ends[over[-1]]
        return over

    def __contains__(self, key: K) -> bool:
        return key in self._ends

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the next one runs out, negative when it has; None: there is none."""
        while self._queue and self._ends.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][0] - self._clock.monotonic() if self._queue else None


def backoff_seconds(attempts: int) -> float:
    """Seconds to wait after the `attempts`-th failure in a row (1, 2, …): doubles from 5 s, at most 300 s.

    No jitter: one engine has one deliverer, so there is no crowd to spread.
    """
    if attempts < 1:
        raise ValueError(f"backoff_seconds counts failures from 1, not {attempts}")
    doublings = min(attempts - 1, 16)  # far beyond the longest; keeps the power small
    return min(LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0**doublings)


def pause_after(took: float, least: float) -> float:
    """Seconds until work that `took` so long is done again: `least`, or as many as make it a hundredth of the time, a
    minute at most. How long it took may have had nothing to do with it (a process that was frozen, a slow disk)."""
    return max(least, min(took * 100, LONGEST_PAUSE_SECONDS))


def counting_clock(told: datetime | None, own: Clock) -> Clock:
    """The clock by which an attempt decides (how old samples are, when a wait is over, what it commits): that of the
    control plane, which has `told` its time. The clock of another host may be wrong by hours. None: it is this one."""
    if told is None:
        return own
    off = (own.now() - told).total_seconds()
    if abs(off) > TOLERANCE.total_seconds():
        said = f"{abs(off):,.0f} s {'ahead of' if off > 0 else 'behind'} that of the control plane"
        # a command that has nothing to log does not import it; an attempt is told in its own log
        from logging import getLogger

        getLogger("trainflow.task").warning(
            "the clock of this host is %s, which counts for what trainflow decides", said
        )
    return MeasuredClock(told, own)
