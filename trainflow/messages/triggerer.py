"""Triggerer ⇄ its event loop, which runs user triggers in a process without a database."""

from __future__ import annotations

import msgspec


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """Run this trigger until it yields an event. `kwargs` is JSON inside of a string: looked at only where the trigger
    is made, so that what is wrong with it is wrong with this trigger alone."""

    trigger_id: int
    trigger_class: str
    kwargs: str


class Unwatch(msgspec.Struct, frozen=True, tag="unwatch"):
    """No task waits for this trigger any more. `killed`: a person ended the task, so `on_kill` is called too."""

    trigger_id: int
    killed: bool = False


class Fired(msgspec.Struct, frozen=True, tag="fired"):
    """The trigger yielded its event. `payload` is JSON, encoded once by the loop."""

    trigger_id: int
    payload: msgspec.Raw


class Crashed(msgspec.Struct, frozen=True, tag="crashed"):
    """The trigger raised, or ended without an event."""

    trigger_id: int
    message: str
    traceback: str = ""


class NotMade(msgspec.Struct, frozen=True, tag="not_made"):
    """The trigger cannot be made from what is kept of it: its class is not there, or does not take the arguments."""

    trigger_id: int
    message: str


class LoopAlive(msgspec.Struct, frozen=True, tag="loop_alive"):
    """The loop turned: sent every second, so that silence means a blocked loop."""


class AskDagRun(msgspec.Struct, frozen=True, tag="ask_dag_run"):
    """A trigger asks for the state of a run."""

    question_id: int
    dag_id: str
    run_id: str


class DagRunAnswer(msgspec.Struct, frozen=True, tag="dag_run_answer"):
    """Answer to `AskDagRun`; None when there is no such run."""

    question_id: int
    state: str | None


ToLoop = Watch | Unwatch | DagRunAnswer
FromLoop = Fired | Crashed | NotMade | LoopAlive | AskDagRun
