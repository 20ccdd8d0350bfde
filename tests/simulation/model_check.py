"""Look at the files of a checkpoint, and inside of its model: a simulated one remembers every row it was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.simulation.committed import CommittedCheckpoint, Entry, digest, numbers_in, origin, time_of
from tests.simulation.memory_store import MemoryStore
from tests.simulation.table import SampleTable, rows_of
from tests.simulation.training import MODEL
from tests.simulation.violation import Violation


class ModelCheck:
    """Knows the store, the table and the checkpoints of all chains."""

    def __init__(
        self, store: MemoryStore, table: SampleTable, all_committed: Mapping[str, CommittedCheckpoint]
    ) -> None:
        self._store = store
        self._table = table
        self._all_committed = all_committed

    def check_files(self, entry: Entry) -> None:
        """Every file is as it was committed."""
        for file in entry["artifacts"]["files"]:
            data = self._store.contents.get(f"{entry['artifacts']['path']}/{file['path']}")
            if data is None or digest(data) != file["sha256"]:
                what = "gone" if data is None else "different"
                raise Violation("atomic", f"{file['path']} of {entry['id']} is {what}")

    def check_model(self, entry: Entry) -> list[str]:
        """The model knows what it began with, and the rows of its split, each once. Returns what it knows."""
        base = origin(entry) or entry["parent_id"]
        if base is not None and base not in self._all_committed:
            raise Violation("exactly once", f"{entry['id']} went on from {base}, which was never committed")
        before = self._all_committed[base].rows if base is not None else []
        rows = [row for each in entry["split"]["partitions"] for row in self._rows(each)]
        found: list[str] = json.loads(self._store.contents[f"{entry['artifacts']['path']}/{MODEL}"])
        expected = [*before, *rows]
        if found != expected:
            raise Violation("exactly once", f"the model {entry['id']} knows {found}, the ledger says {expected}")
        return found

    def _rows(self, trained: Entry) -> list[str]:
        """The rows of a partition as the ledger names it."""
        number, start = numbers_in([trained])[0], time_of(trained["start"])
        times = self._table.written[number][1] if number in self._table.written else 0
        for edition in range(1, times + 1):
            if self._table.fingerprint(number, edition) == trained["fingerprint"]:
                return [] if self._table.is_empty(number, edition) else rows_of(start, edition)
        raise Violation("exactly once", f"partition {number} never was what the ledger calls {trained['fingerprint']}")
