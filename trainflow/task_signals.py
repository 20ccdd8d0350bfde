"""What interrupts a task: it deferred, its time is up, it was told to stop.

These are control signals and no errors. They derive from BaseException: a `try … except Exception` in user code must
not swallow them.

    BaseException
    ├── TaskDeferred                    the wait was handed to the triggerer
    ├── TaskTimeout                     execution_timeout passed
    ├── TaskPartLost                    a process of the task was ended from outside
    └── TaskTerminated                  the task was told to stop
        └── TaskPreempted               and has saved how far it is
"""

from __future__ import annotations

from typing import Any


class TaskTimeout(BaseException):
    """`execution_timeout` passed. It never ends as success after this (Airflow: AirflowTaskTimeout)."""


class TaskPartLost(BaseException):
    """One of the processes that train together was ended from outside, and the others with it. Uses up no retry."""


class TaskTerminated(BaseException):
    """The task was told to stop (SIGTERM). It never ends as success after this (Airflow: AirflowTaskTerminated)."""


class TaskPreempted(TaskTerminated):
    """The task was told to stop, and has saved how far it is: its next attempt goes on from there."""


class TaskDeferred(BaseException):
    """Raised by `defer()`: hand the wait to the triggerer and free the slot.

    Attributes: trigger (a BaseTrigger), method_name, kwargs (JSON), timeout_seconds.
    """

    def __init__(
        self,
        *,
        trigger: Any,
        method_name: str,
        kwargs: dict[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        super().__init__(f"deferred to {type(trigger).__name__}")
        self.trigger = trigger
        self.method_name = method_name
        self.kwargs = kwargs or {}
        self.timeout_seconds = timeout_seconds
