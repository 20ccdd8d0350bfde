"""Judge the end of a process that reported no outcome: whether its attempt failed by its own fault or was lost. Pure.

What that costs is decided by `retry_policy`.
"""

from __future__ import annotations

import signal
from typing import NamedTuple

from trainflow.messages.workload import ProcessExit
from trainflow.observability.resource_exhaustion import BROKEN, UNHEARD, meaning_of_exit_code

#: what is said of an attempt that was preempted
TOLD_TO_STOP = "was told to stop"
#: signals that come from outside of the task: a person, the kernel, a supervisor
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class ExitJudgement(NamedTuple):
    """What the end of a process without a reported outcome means."""

    lost: bool
    message: str
    #: it was told to stop, and did, before it could say so
    stopped: bool = False
    #: it was handed over
    delivered: bool = True
    #: it can never begin
    refused: bool = False


def judge_exit(exit: ProcessExit) -> ExitJudgement:
    """A process ended and its attempt never said how: never a success, whatever its exit code."""
    if exit.reason is not None and exit.refused:
        return ExitJudgement(lost=False, message=exit.reason, refused=True)
    if exit.reason is not None:
        return ExitJudgement(lost=True, message=exit.reason, delivered=exit.delivered)
    if exit.stopped and exit.signal == signal.SIGTERM:
        return ExitJudgement(lost=True, message=TOLD_TO_STOP, stopped=True)
    if exit.out_of_memory:
        return ExitJudgement(
            lost=False,
            message=f"the kernel killed the process because memory ran out{f' ({exit.where})' if exit.where else ''}: "
            "train on smaller splits or batches, or give it more memory",
        )
    if exit.signal is not None:
        name = signal.Signals(exit.signal).name if exit.signal in set(signal.Signals) else f"signal {exit.signal}"
        if exit.signal in _FROM_OUTSIDE:
            return ExitJudgement(lost=True, message=f"the process was killed ({name}) before it reported an outcome")
        return ExitJudgement(
            lost=False, message=f"the process crashed ({name}) before it reported an outcome: see the log"
        )
    ran_out = meaning_of_exit_code(exit.code)
    if ran_out is not None:
        return ExitJudgement(lost=True, message=f"the process could not go on: {ran_out}")
    if exit.code == UNHEARD:
        return ExitJudgement(
            lost=True,
            message="the process was started and no engine answered it: the socket of the home was away, or refused it",
            stopped=exit.stopped,
        )
    if exit.code == BROKEN:
        return ExitJudgement(
            lost=False,
            message="the process broke outside of the task's own function, as one does whose code closes files that it "
            "did not open, or replaces functions of others: see the log",
            stopped=exit.stopped,
        )
    return ExitJudgement(
        lost=False,
        message=f"the process ended with exit code {exit.code} without reporting an outcome: "
        "something in the task called exit or os._exit",
        stopped=exit.stopped,
    )
