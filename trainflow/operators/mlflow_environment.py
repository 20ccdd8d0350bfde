"""Let what user code logs to MLflow land in the run that mirrors this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.messages.execution_api import TrackingRun

URI_VARIABLE = "MLFLOW_TRACKING_URI"
RUN_VARIABLE = "MLFLOW_RUN_ID"
#: the mirror makes its run within moments of the run's start; seconds between questions, and how many
_ASK_EVERY_SECONDS = 0.25
_ASK_TIMES = 12


def uses_mlflow() -> bool:
    """Whether the code that was loaded so far imported MLflow."""
    return "mlflow" in sys.modules


def tracking_variables(ti: TaskInstance) -> dict[str, str]:
    """The variables MLflow reads its run from; empty when there is no mirror.

    Waits a few seconds for the run to be made. Never raises: tracking does not hurt training.
    """
    if not ti.settings.tracking.enabled:
        return {}
    try:
        run = next((run for run in _asked(ti) if run.run_id), None)
    except Exception as error:
        ti.log.warning("the run in MLflow cannot be asked for (%s): goes on without it", type(error).__name__)
        return {}
    if run is None:
        ti.log.info("there is no run in MLflow yet: what this task logs there gets a run of its own")
        return {}
    return {name: value for name, value in ((URI_VARIABLE, run.tracking_uri), (RUN_VARIABLE, run.run_id)) if value}


def enter_tracking_run(ti: TaskInstance) -> None:
    """Set the variables for this process, which belongs to one attempt."""
    os.environ.update(tracking_variables(ti))


def _asked(ti: TaskInstance) -> Iterator[TrackingRun]:
    for number in range(_ASK_TIMES):
        if number:
            ti.sleep(_ASK_EVERY_SECONDS)
        yield ti.get_tracking_run()
