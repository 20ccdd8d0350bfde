"""What a trace tells of a run."""

from __future__ import annotations

from datetime import datetime

import msgspec


class TracedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, from when it was handed to the executor. `waits`: in the triggerer."""

    task_id: str
    role: str | None
    map_index: int
    try_number: int
    attempt_id: str
    outcome: str
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime
    hostname: str = ""
    problem: str = ""
    waits: list[tuple[datetime, datetime]] = []


class RunTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `attributes`: what else is known of it, by name."""

    dag_id: str
    run_id: str
    clear_number: int
    state: str
    started_at: datetime
    ended_at: datetime
    note: str = ""
    attributes: dict[str, str | int | float] = {}
    #: of the commit, where there was one
    commit: dict[str, str | int | float] = {}
    attempts: list[TracedAttempt] = []
