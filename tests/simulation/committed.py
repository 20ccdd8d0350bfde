"""What a ledger says was committed, as raw JSON, and what checkpoints and their ancestors were trained on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.simulation.table import tiles

Entry = dict[str, Any]


@dataclass(frozen=True)
class Lineage:
    """What a checkpoint and its ancestors were trained on, by partition number."""

    trained: frozenset[int] = frozenset()
    holes: frozenset[int] = frozenset()
    #: exclusive end; None: nothing was trained, and nothing says where to begin
    watermark: datetime | None = None


@dataclass
class CommittedCheckpoint:
    """A committed checkpoint."""

    entry: Entry
    line: Lineage
    rows: list[str]
    pruned: bool = False
    promoted: bool = False
    #: a rewind took it off the line
    undone: bool = False
    #: a branch begins there
    forked: bool = False

    @property
    def origin(self) -> str | None:
        """The checkpoint of another chain whose weights it went on from."""
        return origin(self.entry)


def origin(entry: Entry) -> str | None:
    """The checkpoint of another chain whose weights a checkpoint went on from."""
    origin = entry.get("origin")
    return None if origin is None else str(origin["checkpoint_id"])


def numbers_in(stretches: list[dict[str, str]]) -> list[int]:
    """The numbers of the partitions in them."""
    return [number for each in stretches for number in tiles(time_of(each["start"]), time_of(each["end"]))]


def digest(data: bytes) -> str:
    """The digest of bytes as entries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def time_of(text: str) -> datetime:
    """The moment that an entry writes."""
    return datetime.fromisoformat(text)
