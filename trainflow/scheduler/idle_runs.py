"""Which runs no scheduler goes on with: a task was the last to end, and what follows has not been decided.

The end of a task is told to one scheduler, that of the home of the API server which heard it. That one may be frozen or
dead, or on a host that cannot be reached; or the database tells nothing, and the API server has no engine beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainflow.metadata.queries.live_queries import IdleRun


class IdleRuns:
    """Runs with nothing under way, as one scheduler has seen them from look to look."""

    def __init__(self) -> None:
        #: those of the last look, and whether they were decided
        self._seen: dict[IdleRun, bool] = {}

    def due(self, found: Sequence[IdleRun]) -> set[int]:
        """Ids of the runs to decide: each that has not moved since the last look, once. One that is seen for the first
        time is just being decided by the one that was told; one that is idle afterwards, too, waits for another run."""
        due = {run.id for run in found if self._seen.get(run) is False}
        self._seen = {run: run in self._seen for run in found}
        return due
