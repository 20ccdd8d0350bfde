"""Which chains go on from checkpoints of which: an empty file below the base's folder, made before the first entry
that speaks of it, so that a base need not look through every chain of the store to know what it must keep."""

from __future__ import annotations

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.store import Store
from trainflow.errors import InputError


def register(store: Store, base: ChainKey, dependent: ChainKey) -> None:
    """`dependent` is about to go on from a checkpoint of `base`. May be said again. Raises StoreFailure."""
    store.replace(f"{base.dependents}/{dependent.prefix}", b"")


def registered(store: Store, base: ChainKey) -> list[ChainKey]:
    """The chains that went on, or meant to, from a checkpoint of `base`."""
    found = []
    for file in store.files(base.dependents):
        names = file.path.removeprefix(f"{base.dependents}/").split("/")
        try:
            found.append(ChainKey(*names))
        except (InputError, TypeError):
            # nothing that was registered here
            continue
    return found


def references(store: Store, base: ChainKey) -> set[str]:
    """Checkpoints of `base` that another chain of the store began with or last went on from."""
    return {
        each.checkpoint_id
        for other in registered(store, base)
        for each in Ledger(store, other).state().bases
        if each.chain == base
    }
