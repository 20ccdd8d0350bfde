"""What is drained: it finishes what it has, and takes nothing new, until a person says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from trainflow.metadata.sql_text import ReadingConnection, SqlText


class DrainKind(StrEnum):
    """What can be drained. A worker is named by its host, or by what it was started as."""

    WORKER = "worker"
    QUEUE = "queue"
    DAG = "dag"


class Drain(NamedTuple):
    """One thing that is drained. `note`: why, in the words of the person who did it."""

    kind: DrainKind
    name: str
    since: datetime
    note: str | None

    @property
    def sentence(self) -> str:
        """What is said where something waits for it."""
        why = f" ({self.note})" if self.note else ""
        return (
            f"{_SHOWN[self.kind]} '{self.name}' is drained{why}: "
            f"'trainflow fleet undrain {self.kind} {self.name}' lets it go on"
        )


_SHOWN = {DrainKind.WORKER: "worker", DrainKind.QUEUE: "queue", DrainKind.DAG: "DAG"}


class Drains:
    """All that is drained."""

    def __init__(self, drains: Mapping[tuple[DrainKind, str], Drain] | None = None) -> None:
        self._drains = dict(drains or {})

    def __bool__(self) -> bool:
        return bool(self._drains)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drains) and self._drains == other._drains

    __hash__ = None  # type: ignore[assignment]

    def get(self, kind: DrainKind, name: str) -> Drain | None:
        """The drain of this thing; None where it takes what comes."""
        return self._drains.get((kind, name))

    def of_task(self, dag_id: str, queue: str) -> Drain | None:
        """The drain that keeps a task of this DAG and queue from being handed over."""
        return self.get(DrainKind.DAG, dag_id) or self.get(DrainKind.QUEUE, queue)

    def all(self) -> list[Drain]:
        """All of them, in an order that is always the same."""
        return [self._drains[key] for key in sorted(self._drains)]


def listing(connection: ReadingConnection) -> Drains:
    """What is drained now."""
    drains = [Drain(DrainKind(row.kind), *row[1:]) for row in _ALL.rows(connection)]
    return Drains({(each.kind, each.name): each for each in drains})


_ALL = SqlText("SELECT kind, name, since, note FROM drain", Drain, moments=["since"])
