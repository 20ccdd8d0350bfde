"""A task that looks again and again until something is there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from trainflow.authoring import arguments
from trainflow.authoring.operator import BaseOperator
from trainflow.deadlines import seconds_left
from trainflow.errors import (
    FailException,
    InputError,
    RescheduleException,
    SensorTimeout,
    SkipException,
    TriggerTimeout,
)
from trainflow.task_signals import TaskTimeout

if TYPE_CHECKING:
    from trainflow.authoring.context import Context

_MODES = ("poke", "reschedule")
_WEEK_SECONDS = 7 * 24 * 3600.0


class PokeReturnValue:
    """What `poke` may return instead of a bool: `xcom_value` is pushed as the return value when it is done."""

    def __init__(self, is_done: bool, xcom_value: Any = None) -> None:
        self.is_done = is_done
        self.xcom_value = xcom_value

    def __bool__(self) -> bool:
        return self.is_done


class BaseSensorOperator(BaseOperator):
    """Calls `poke` until it returns true.

    Between two looks `mode="poke"` keeps the slot and the process, `"reschedule"` gives both back. `timeout` counts
    from the first start of the task instance, over retries and reschedules; it ends with SensorTimeout, which is never
    retried, or as skipped when `soft_fail`. Durations are timedeltas or seconds.
    """

    def __init__(
        self,
        *,
        poke_interval: timedelta | float = 60.0,
        timeout: timedelta | float = _WEEK_SECONDS,
        soft_fail: bool = False,
        mode: Literal["poke", "reschedule"] = "poke",
        exponential_backoff: bool = False,
        max_wait: timedelta | float | None = None,
        **kwargs: Any,
    ) -> None:
        """`exponential_backoff` doubles the interval after each look, up to `max_wait`."""
        super().__init__(**kwargs)
        owner = f"task {self.task_id!r}"
        if mode not in _MODES:
            raise InputError(f"{owner}: mode {mode!r} is unknown. Allowed: {', '.join(_MODES)}")
        if max_wait is not None and not exponential_backoff:
            raise InputError(f"{owner}: max_wait has a meaning only with exponential_backoff=True")
        self.poke_interval = arguments.duration(poke_interval, f"{owner}: poke_interval", positive=True)
        self.timeout = arguments.duration(timeout, f"{owner}: timeout")
        self.soft_fail = soft_fail
        self.mode = mode
        self.exponential_backoff = exponential_backoff
        self.max_wait = arguments.optional_duration(max_wait, f"{owner}: max_wait")

    @abstractmethod
    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once. True (or a PokeReturnValue that is done) ends the wait."""

    def execute(self, context: Context) -> Any:
        with self._failing_softly():
            return self._wait(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        with self._failing_softly():
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except TriggerTimeout as error:
                raise SensorTimeout(str(error)) from error

    @contextmanager
    def _failing_softly(self) -> Iterator[None]:
        try:
            yield
        except (FailException, TaskTimeout) as error:
            if self.soft_fail:
                raise SkipException(f"skipped instead of failed (soft_fail): {error}") from error
            raise

    def _wait(self, context: Context) -> Any:
        ti = context["ti"]
        looks = ti.reschedule_count if self.mode == "reschedule" else 0
        whole, now = self.timeout.total_seconds(), ti.clock.now()
        deadline = ti.clock.monotonic() + seconds_left(ti.first_started_at or now, whole, now)
        while True:
            answer = self.poke(context)
            if answer:
                return answer.xcom_value if isinstance(answer, PokeReturnValue) else None
            left = deadline - ti.clock.monotonic()
            if left <= 0:
                raise SensorTimeout(f"task {self.task_id!r}: not there after {self.timeout} (timeout)")
            looks += 1
            # the last look is at the deadline, not up to one interval before it
            wait = min(self.interval(looks).total_seconds(), left)
            if self.mode == "reschedule":
                raise RescheduleException(timedelta(seconds=wait))
            ti.sleep(wait)

    def interval(self, looks: int) -> timedelta:
        """How long to wait after so many looks (1 or more)."""
        if not self.exponential_backoff:
            return self.poke_interval
        longest = self.max_wait or self.timeout
        seconds = self.poke_interval.total_seconds() * 2.0 ** min(looks - 1, 60)
        return timedelta(seconds=min(seconds, longest.total_seconds()))
