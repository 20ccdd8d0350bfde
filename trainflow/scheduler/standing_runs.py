"""Which runs nobody goes on with: their last task has ended, and whoever was told of that has not decided what follows.

The end of a task is told to one scheduler, that of the home of the API server which heard it. That one may be frozen or
dead, or on a host that cannot be reached; or the database tells nothing, and the API server has no engine beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainflow.metadata.queries.live_queries import StandingRun


class StandingRuns:
    """Runs with nothing under way, as one scheduler has seen them from look to look."""

    def __init__(self) -> None:
        #: those of the last look, and whether they were decided
        self._seen: dict[StandingRun, bool] = {}

    def due(self, found: Sequence[StandingRun]) -> set[int]:
        """Ids of the runs to decide: each that has not moved since the last look, once. One that is seen for the first
        time is just being decided by whoever was told; one that still stands afterwards waits for another run."""
        due = {run.id for run in found if self._seen.get(run) is False}
        self._seen = {run: run in self._seen for run in found}
        return due
