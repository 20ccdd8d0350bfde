"""Do a phase's work for many runs in one transaction, and set aside the one that cannot be dealt with.

The ordinary way costs nothing: all of it in one transaction. Only when that fails, by the fault of what it looked at,
the same work is done again with each run in a savepoint of its own; the run that fails then ends as failed with the
error as its note, in the same transaction, so that no later engine stumbles over it. Nothing is hidden: the traceback
is in the log, the sentence in `status`, `why` and the notice of a stopped chain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from trainflow.errors import describe
from trainflow.metadata.database import Database
from trainflow.metadata.queries import run_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.transaction_retries import is_own_fault
from trainflow.observability.redaction import presentable
from trainflow.serialization.document import ChainDocument
from trainflow.settings.outbox_channels import Channels, told_of_end
from trainflow.states import DagRunState

log = logging.getLogger(__name__)

_CHARACTERS = 1_000
#: does a step for a run (by its key); what the step raises is the run's own business
Each = Callable[[int, Callable[[], None]], None]
#: tells that a run was set aside: its row, its chain if it trains, and why
OnSetAside = Callable[[Connection, Any, ChainDocument | None, str, datetime], None]


class Isolation:
    """Keeps one run from stopping all others."""

    def __init__(self, database: Database, versions: Versions, on_set_aside: OnSetAside, *, channels: Channels) -> None:
        self._database = database
        self._versions = versions
        self._on_set_aside = on_set_aside
        self._channels = channels
        #: called for each run that was set aside, once that is committed, with why
        self.tell: Callable[[str], None] = lambda _why: None
        #: runs that could not even be set aside: this process does not look at them again
        self.untouchable: set[int] = set()

    def each(self, work: Callable[[Connection, Each], None], now: datetime) -> None:
        """Call `work`, which calls what it is given for each run it deals with. It is called again when a run fails, so
        it begins anew each time. Raises what is no run's fault."""
        try:
            with self._database.transaction() as connection:
                work(connection, together)
                return
        except Exception as error:
            if not is_own_fault(error):
                raise
            log.warning("a run cannot be dealt with, so each is looked at alone: %s: %s", type(error).__name__, error)
        told: list[str] = []
        with self._database.transaction() as connection:
            work(connection, lambda dag_run_id, step: told.extend(self._alone(connection, dag_run_id, step, now)))
        for why in told:
            self.tell(why)

    def _alone(self, connection: Connection, dag_run_id: int, step: Callable[[], None], now: datetime) -> list[str]:
        """Do a step in a savepoint. What is to be told of it: nothing, or that the run was set aside."""
        if dag_run_id in self.untouchable:
            return []
        try:
            with connection.begin_nested():
                step()
        except Exception as error:
            if not is_own_fault(error):
                raise
            return self._set_aside(connection, dag_run_id, error, now)
        return []

    def _set_aside(self, connection: Connection, dag_run_id: int, error: Exception, now: datetime) -> list[str]:
        why = presentable(describe(error), _CHARACTERS)
        note = f"set aside, because the scheduler cannot deal with it: {why}"
        log.error("run %d is %s", dag_run_id, note, exc_info=error)
        try:
            with connection.begin_nested():
                row = run_queries.brief(connection, dag_run_id)
                if row.state not in (DagRunState.QUEUED, DagRunState.RUNNING):
                    return []
                chain = self._chain_of(connection, row.version_id)
                told = told_of_end(self._channels, trains=chain is not None)
                run_queries.set_aside(connection, row, now, note=note, channels=told)
                self._on_set_aside(connection, row, chain, note, now)
        except Exception as second:
            if not is_own_fault(second):
                raise
            self.untouchable.add(dag_run_id)
            log.error(
                "run %d cannot be set aside; until the next start it is left as it is", dag_run_id, exc_info=second
            )
        return [f"run {dag_run_id} is {note}"]

    def _chain_of(self, connection: Connection, version_id: int) -> ChainDocument | None:
        """What the run trains, as far as that can be read."""
        try:
            return self._versions.get(connection, version_id)[0].chain
        except Exception as error:
            if not is_own_fault(error):
                raise
            return None


def together(_dag_run_id: int, step: Callable[[], None]) -> None:
    """Do a step in the transaction of all: what it raises ends that."""
    step()
