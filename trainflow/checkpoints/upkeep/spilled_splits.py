"""Splits too large for an XCom: files in the chain's store that are of no use once what came after them is committed.

A split is made for the head that its run has read, and only a child of the head can be committed. So what was handed
over before the head was committed can never be committed any more; tasks after the commit may still read it for a
while, which is what the grace is for.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.storage.store import Store, StoreFile

_NAME = re.compile(r"split-[0-9a-f]{64}\.parquet")


def spent_splits(
    store: Store, chain: ChainKey, state: ChainState, now: datetime, *, grace: timedelta
) -> list[StoreFile]:
    """The splits that were handed over before the head was committed, and longer ago than `grace`. Never what has a
    name that no split has, and none whose age the store does not tell. Raises StoreFailure."""
    if state.head is None:
        return []
    latest = min(now - grace, state.head.at)
    return [
        file
        for file in store.files(chain.splits)
        if _NAME.fullmatch(file.path.removeprefix(f"{chain.splits}/"))
        and file.modified is not None
        and file.modified <= latest
    ]


def clear_splits(store: Store, chain: ChainKey, state: ChainState, now: datetime, *, grace: timedelta) -> int:
    """Delete them; how many there were. Raises StoreFailure."""
    spent = spent_splits(store, chain, state, now, grace=grace)
    for file in spent:
        store.delete(file.path)
    return len(spent)
