"""Follow the ledgers of all chains of a store: what each says, and what they say of each other."""

from __future__ import annotations

from collections.abc import Mapping

from trainflow.checkpoints.chain import ChainKey
from trainflow.testing.simulation.chain_check import ChainCheck, Kept
from trainflow.testing.simulation.expected import Expected
from trainflow.testing.simulation.memory_store import MemoryStore
from trainflow.testing.simulation.table import SampleTable


class LedgerCheck:
    """Follows the ledgers of all chains of a store."""

    def __init__(self, store: MemoryStore, table: SampleTable, expected: Mapping[ChainKey, Expected]) -> None:
        self._store = store
        self._followed = -1
        #: the checkpoints of all chains
        self.kept: dict[str, Kept] = {}
        self.chains = {key: ChainCheck(key, store, table, self.kept, each) for key, each in expected.items()}

    def follow(self) -> None:
        """Check the entries that are new."""
        if self._store.version == self._followed:
            return
        self._followed = self._store.version
        for chain in self.chains.values():
            for name in chain.follow():
                self.kept[name] = chain.kept[name]

    def stands_on_undone(self, key: ChainKey) -> str | None:
        """A checkpoint of a chain's line that came from what its base has undone; None: there is none."""
        chain = self.chains[key]
        line = [] if chain.head is None else [chain.head, *chain.ancestors()]
        origins = {name: chain.kept[name].origin for name in line}
        return next((name for name, origin in origins.items() if origin and self.kept[origin].undone), None)

    def check_everything_is_there(self) -> None:
        """Every committed file is as it was committed, unless it was pruned."""
        for chain in self.chains.values():
            chain.check_everything_is_there()

    def has_committed(self, run_id: str) -> bool:
        """Is there a checkpoint of this run?"""
        return any(run_id in chain.runs for chain in self.chains.values())

    def has_concluded(self, run_id: str) -> bool:
        """Has this run written an entry?"""
        return any(run_id in chain.concluded for chain in self.chains.values())

    def has_save_of(self, attempt_id: str) -> bool:
        """Has this attempt left a training from which another one can go on?"""
        saves = [path.split("/") for path in self._store.contents if "/partials/" in path]
        return any(parts[-1].startswith("manifest.") and parts[-2].startswith(f"{attempt_id}-") for parts in saves)

    def is_committed(self, path: str) -> bool:
        """Is this file part of a checkpoint?"""
        return path.split("/")[-2] in self.kept
