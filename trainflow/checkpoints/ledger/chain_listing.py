"""What lies in the folder of a chain, its artifacts aside, as one listing shows it: for stores in which each look is a
request. The names alone prove which entries there have to be, and the marks of their contents which of them were read
before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.storage.store import Store, StoreFile

#: the folder of the artifacts, which may hold many files, sorts before everything else that is looked at here
_FIRST = "artifacts0"


class ChainListing(msgspec.Struct, frozen=True):
    """Files by what they are. `entries` by their number."""

    entries: dict[int, StoreFile]
    mark: StoreFile | None
    snapshots: list[StoreFile]
    pages: list[StoreFile]
    others: list[StoreFile]

    def below(self, folder: str) -> Iterator[str]:
        """The paths, from there, of files in one of the other folders of the chain."""
        return (each.path[len(folder) + 1 :] for each in self.others if each.path.startswith(f"{folder}/"))


def list_chain(store: Store, chain: ChainKey) -> ChainListing:
    """Look. Raises StoreFailure."""
    return listing_of(chain, store.files_after(chain.prefix, _FIRST))


def listing_of(chain: ChainKey, files: Sequence[StoreFile]) -> ChainListing:
    """Sort what a listing showed."""
    found = ChainListing({}, next((each for each in files if each.path == chain.mark), None), [], [], [])
    for each in files:
        folder, _, name = each.path.rpartition("/")
        if folder == chain.ledger:
            number = name.removesuffix(".json")
            if name.endswith(".json") and number.isdecimal() and len(number) == 10:
                found.entries[int(number)] = each
        elif folder == chain.snapshots:
            found.snapshots.append(each)
        elif folder == chain.pages:
            found.pages.append(each)
        else:
            found.others.append(each)
    return found
