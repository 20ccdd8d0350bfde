"""Follow the ledgers of all chains of a store: what each says, and what they say of each other."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.chain_check import ChainCheck
from tests.simulation.committed import CommittedCheckpoint
from tests.simulation.expected import Expected
from tests.simulation.memory_store import MemoryStore
from tests.simulation.table import SampleTable
from tests.simulation.training import MODEL
from tests.simulation.violation import Violation
from trainflow.checkpoints.chain import ChainKey


class LedgerCheck:
    """Follows the ledgers of all chains of a store."""

    def __init__(
        self, store: MemoryStore, table: SampleTable, expected: Mapping[ChainKey, Expected], *, homes: int = 1
    ) -> None:
        """`homes`: how many train the chains."""
        self._homes = homes
        self._store = store
        self._followed = -1
        #: training → the furthest row that was saved in it
        self._furthest: dict[str, int] = {}
        #: a person wants splits to be begun anew: what was saved of them is given up
        self.saves_are_given_up = False
        #: the checkpoints of all chains
        self.kept: dict[str, CommittedCheckpoint] = {}
        #: steps until lost entries are put back
        self._short_for = 0
        self._table = table
        self.chains: dict[ChainKey, ChainCheck] = {}
        self.add(expected)

    def add(self, expected: Mapping[ChainKey, Expected]) -> None:
        """Follow these chains as well."""
        for key, each in expected.items():
            if key not in self.chains:
                self.chains[key] = ChainCheck(key, self._store, self._table, self.kept, each)

    def follow(self) -> None:
        """Check the entries that are new."""
        if self._store.version == self._followed:
            return
        self._followed = self._store.version
        self._check_saves()
        for chain in self.chains.values():
            for name in chain.follow():
                self.kept[name] = chain.kept[name]

    def saw_restart(self) -> None:
        """A home had tasks run again: it goes on from no save made before, and deletes also those of another home."""
        if self._homes > 1:
            self.saves_are_given_up = True

    def _check_saves(self) -> None:
        """The furthest save of a training stays as long as there is any."""
        furthest: dict[str, int] = {}
        for path in self._store.contents:
            folder, _, name = path.rpartition("/")
            # of an attempt that lives after its files were deleted, there is none: its save is not complete
            is_whole = f"{folder}/files/{MODEL}" in self._store.contents
            if "/partials/" in folder and name.startswith("manifest.") and is_whole:
                training = folder.rsplit("/", 1)[0]
                furthest[training] = max(furthest.get(training, 0), int(name.split(".")[1]))
        for training, row in furthest.items():
            if row < self._furthest.get(training, 0) and not self.saves_are_given_up:
                raise Violation(
                    "saves go forward", f"{training} was saved at row {self._furthest[training]}, now at {row}"
                )
        self._furthest = furthest

    def lose(self, key: ChainKey, first: int, last: int, steps: int) -> None:
        """Take entries of a chain away for so many steps."""
        self.follow()
        self.chains[key].lose(first, last)
        self._short_for = steps

    @property
    def is_short(self) -> bool:
        """Whether entries are lost now."""
        return any(chain.lost for chain in self.chains.values())

    def pass_step(self) -> bool:
        """Put back what is lost when its time has come; whether that happened."""
        self._short_for -= 1
        if self._short_for > 0 or not self.is_short:
            return False
        for chain in self.chains.values():
            if chain.lost:
                chain.put_back()
        return True

    def stands_on_undone(self, key: ChainKey) -> str | None:
        """A checkpoint of a chain's line that came from what its base has undone; None: there is none."""
        chain = self.chains[key]
        line = [] if chain.head is None else [chain.head, *chain.ancestors()]
        origins = {name: chain.kept[name].origin for name in line}
        # what a branch was forked from stays what it was, whatever is undone there
        undone = {name for name, origin in origins.items() if origin and self.kept[origin].undone}
        return next((name for name in line if name in undone and not self.kept[origins[name] or ""].forked), None)

    def check_everything_is_there(self) -> None:
        """Every committed file is as it was committed, unless it was pruned."""
        for chain in self.chains.values():
            chain.check_everything_is_there()

    def has_committed(self, run_id: str) -> bool:
        """Has this run committed a checkpoint, and come to no other conclusion since it was cleared?"""
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
