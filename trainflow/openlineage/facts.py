"""What is told of a run of a chain."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec


class LineageChain(msgspec.Struct, frozen=True):
    """A chain, and its store: a URL or an absolute path."""

    store: str
    pipeline: str
    stage: str
    branch: str


class LineageCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint of a chain; `number` 0 and `watermark` None: not known."""

    chain: LineageChain
    id: str
    number: int = 0
    watermark: datetime | None = None
    metrics: dict[str, float | None] = {}
    promoted: list[str] = []


class ListedPartition(msgspec.Struct, frozen=True):
    """A partition of a split, and what tells its content from another one."""

    start: datetime
    fingerprint: str


class LineageSplit(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was trained on. `table`: the table's path, a URL or absolute. `partitions` are told one by one where
    they are few (`listed`)."""

    table: str
    start: datetime
    end: datetime
    partitions: int
    holes: int
    digest: str
    files: int | None = None
    rows: int | None = None
    size_bytes: int | None = None
    listed: list[ListedPartition] = []


class LineageRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `clear_number`: how often a person let it run again: each time is a run of its own. `page`: its page."""

    namespace: str
    dag_id: str
    run_id: str
    clear_number: int
    queued_at: datetime
    started_at: datetime
    file: str
    description: str = ""
    page: str | None = None


class RunBegan(msgspec.Struct, frozen=True):
    """A run has begun."""

    run: LineageRun


class RunEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A run has ended. `why`: of one that did not succeed."""

    run: LineageRun
    state: Literal["success", "failed", "cancelled"]
    ended_at: datetime
    why: str = ""
    split: LineageSplit | None = None
    parent: LineageCheckpoint | None = None
    #: the checkpoint of another stage that training began with
    upstream: LineageCheckpoint | None = None
    checkpoint: LineageCheckpoint | None = None
