"""An event that happened to a chain and that people want to be told of."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

#: XCom of a task that stops its chain knowingly: {cause, key, sentence, facts} of the notice
XCOM_STOPPED = "stopped"
#: what a run found changed behind its chain, and what it did about it: a sentence for who follows it
XCOM_LATE_DATA = "late_data"
#: of a commit of a stage that starts from another one: whether there is more of that now, so that the stage goes on by
#: itself. Where there is not, it is the other one that triggers it again
XCOM_MORE = "more"


class Event(StrEnum):
    """What happened."""

    #: nothing more is trained until a person does something; `cause` says why
    STOPPED = "stopped"
    #: a person decided, and a stopped chain goes on
    RESUMED = "resumed"
    #: a checkpoint got an alias
    PROMOTED = "promoted"
    #: a partition that was trained on was published again
    REPUBLISHED = "republished"
    #: a task after the commit failed for good; the chain goes on
    AFTER_COMMIT_FAILED = "after_commit_failed"
    #: samples arrive faster than they are trained on
    NEVER_CATCHES_UP = "never_catches_up"


class Cause(StrEnum):
    """Why a chain stopped."""

    GATE = "gate"
    #: a partition is missing and policy says fail
    GAP = "gap"
    #: a partition is there and is not good
    CHECK = "check"
    #: a task failed, and no retry was left or would have helped
    TASK = "task"


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One notice. The same fact has the same `key`, and is told once, however often it is found out.

    Nothing in it is secret: it leaves the project. `facts` are JSON.
    """

    event: Event
    key: str
    #: one sentence for people
    sentence: str
    pipeline: str
    stage: str = "main"
    branch: str = "main"
    dag_id: str = ""
    run_id: str = ""
    cause: Cause | None = None
    facts: dict[str, Any] = {}
