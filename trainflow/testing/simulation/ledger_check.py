"""Look at a ledger with eyes of its own: the bytes of the entries, and what is inside of the models.

A simulated model remembers every partition it was ever trained on. What the ledger says must be what the model knows.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from trainflow.testing.simulation.memory_store import MemoryStore
from trainflow.testing.simulation.pipeline import CHAIN
from trainflow.testing.simulation.table import LENGTH, START, SampleTable
from trainflow.testing.simulation.training import MODEL
from trainflow.testing.simulation.violation import Violation


class LedgerCheck:
    """Follows one chain's ledger. Raises Violation for the first entry that must not be there."""

    def __init__(self, store: MemoryStore, table: SampleTable) -> None:
        self._store = store
        self._table = table
        self._previous = ""
        self._entries: dict[str, dict[str, Any]] = {}
        self.sequence = 0
        self.head: str | None = None
        #: runs that have committed
        self.runs: set[str] = set()

    @property
    def watermark(self) -> datetime | None:
        """The exclusive end of what the head was trained on."""
        return _time(self._entries[self.head]["watermark"]) if self.head else None

    def ancestors(self) -> list[str]:
        """Checkpoints from the head's parent back to the root."""
        found, each = [], self.head
        while each is not None and (each := self._entries[each]["parent_id"]) is not None:
            found.append(each)
        return found

    def is_committed(self, path: str) -> bool:
        """Is this file part of a checkpoint?"""
        return path.split("/")[-2] in self._entries

    def follow(self) -> int:
        """Check the entries that are new. Returns how many were."""
        count = 0
        while (data := self._store.contents.get(CHAIN.entry(self.sequence + 1))) is not None:
            self._check(json.loads(data))
            self._previous = f"sha256:{hashlib.sha256(data).hexdigest()}"
            self.sequence += 1
            count += 1
        return count

    def check_everything_is_there(self) -> None:
        """Every committed file is as it was committed."""
        for entry in self._entries.values():
            self._check_files(entry)

    def _check(self, entry: dict[str, Any]) -> None:
        if entry["sequence"] != self.sequence + 1 or entry["previous"] != self._previous:
            raise Violation("fenced", f"entry {entry['sequence']} does not follow the entry before it")
        if entry["kind"] == "rewind":
            self.head = entry["to_checkpoint_id"]
            return
        if entry["parent_id"] != self.head:
            raise Violation("fenced", f"{entry['id']} is a child of {entry['parent_id']}, the head is {self.head}")
        if entry["id"] in self._entries:
            raise Violation("exactly once", f"{entry['id']} was committed twice")
        self._check_files(entry)
        self._check_tiles(entry)
        self._check_model(entry)
        self._entries[entry["id"]] = entry
        self.head = entry["id"]
        self.runs.add(entry["by"]["run_id"])

    def _check_files(self, entry: dict[str, Any]) -> None:
        for file in entry["artifacts"]["files"]:
            data = self._store.contents.get(f"{entry['artifacts']['path']}/{file['path']}")
            if data is None or f"sha256:{hashlib.sha256(data).hexdigest()}" != file["sha256"]:
                raise Violation(
                    "atomic", f"{file['path']} of {entry['id']} is {'gone' if data is None else 'different'}"
                )

    def _check_tiles(self, entry: dict[str, Any]) -> None:
        split = entry["split"]
        edge = self.watermark or START
        if _time(split["start"]) != edge:
            raise Violation("exactly once", f"{entry['id']} starts at {split['start']}, the head ends at {edge}")
        tiles = [(_time(each["start"]), _time(each["end"])) for each in [*split["partitions"], *split.get("holes", [])]]
        for start, end in sorted(tiles):
            if start != edge:
                raise Violation("exactly once", f"{entry['id']}: {start} follows {edge}")
            edge = end
        if edge != _time(split["end"]) or edge != _time(entry["watermark"]):
            raise Violation("exactly once", f"{entry['id']} says it ends at {entry['watermark']}, it ends at {edge}")

    def _check_model(self, entry: dict[str, Any]) -> None:
        """The model knows its parent's partitions, and those of its split, each once."""
        trained = [each["start"] for each in entry["split"]["partitions"]]
        for start in trained:
            if (_time(start) - START) // LENGTH not in self._table.arrived:
                raise Violation("exactly once", f"{entry['id']} was trained on {start}, which has never been there")
        before = self._model(entry["parent_id"]) if entry["parent_id"] else []
        expected = [*before, *(_time(start).isoformat() for start in trained)]
        found = self._model(entry["id"])
        if found != expected or len(set(found)) != len(found):
            raise Violation("exactly once", f"the model {entry['id']} knows {found}, the ledger says {expected}")

    def _model(self, checkpoint_id: str) -> list[str]:
        model: list[str] = json.loads(self._store.contents[f"{CHAIN.attempt(checkpoint_id)}/{MODEL}"])
        return model


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
