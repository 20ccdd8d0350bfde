"""What a request of an attempt has changed, and who decides what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trainflow.messages.execution_api import Outcome, OutcomeState

if TYPE_CHECKING:
    # the supervisor of an attempt on another host imports this module, and has no database
    from sqlalchemy import Connection


class AppliedChange(NamedTuple):
    """What a request changed, for the scheduler."""

    dag_run_id: int
    #: a task instance reached its end or is to be tried again: its run has to be looked at
    ended: bool = False
    #: something is to be tried again at a time of its own
    later: bool = False
    #: a wait was handed over
    deferred: bool = False
    #: a run may have been created
    triggered: bool = False
    #: a notice is to be delivered
    told: bool = False


def change_of(dag_run_id: int, outcome: Outcome) -> AppliedChange:
    """What an outcome of a task instance of this run changes."""
    deferred = outcome.state is OutcomeState.DEFERRED
    return AppliedChange(
        dag_run_id,
        ended=not deferred,
        later=outcome.state in (OutcomeState.FAILED, OutcomeState.RESCHEDULED),
        deferred=deferred,
        triggered=bool(outcome.triggered_runs),
        told=bool(outcome.notices),
    )


class FollowUp(Protocol):
    """Decides what follows from an outcome, in its transaction: one commit between the end of a task and the next one.
    What it has decided counts once `on_change` is called with the change that it was given."""

    @property
    def ready(self) -> bool:
        """Whether it decides now. False: it does so when `on_change` is called."""
        ...

    def begin(self, connection: Connection, outcome: Outcome) -> Callable[[AppliedChange, datetime], None]:
        """Ask for what it needs to know, once this end of an attempt is written. Call what is returned to decide."""
        ...

    def take_back(self) -> None:
        """Assume nothing of what was decided since: it is not known whether it counts."""
        ...
