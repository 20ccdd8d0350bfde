"""Traces of checkpoints: what knows by its id that one was committed, without reading the ledger.

Artifacts are sealed after the entry that speaks of them was created; saves inside a split are named after the head that
they start from; other chains go on from checkpoints of this one. A checkpoint that left a trace and is in no entry was
in one that is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry, Loss
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.saves.intermediate_saves import trainings
from trainflow.checkpoints.stages.dependents import references
from trainflow.errors import LedgerCorrupt
from trainflow.humanize import agreeing, counted
from trainflow.identifiers import attempt_time
from trainflow.storage.store import SEAL

_SHOWN = 3


def raise_if_unrecorded(
    ledger: Ledger,
    known: Collection[str],
    referenced: Collection[str] | None = None,
    artifacts: Collection[str] | None = None,
) -> None:
    """Raise LedgerCorrupt when a checkpoint has left a trace and no entry speaks of it; asked before each deletion.

    `known` are checkpoints that entries speak of, all of them or some: the ledger is read where that is not enough.
    `referenced`: what other chains went on from, and `artifacts`: the names in their folder, where that was asked
    before. Raises StoreFailure.
    """
    found = traces(ledger, {*known, *_owners(ledger)}, referenced, artifacts)
    if found:
        found = unrecorded(found, named_in(ledger.entries()))
    if found:
        raise LedgerCorrupt(
            f"the ledger of chain {ledger.chain} in {ledger.store.url} is short: {sentence(found)}. Nothing is deleted "
            f"meanwhile. Restore what is missing in {ledger.store.uri(ledger.chain.ledger)} from a backup or another "
            f"copy of the store, then run 'trainflow audit {ledger.chain.arguments}'; where it cannot be restored, "
            f"'trainflow repair {ledger.chain.arguments} --accept-loss' shows what is left",
            location=ledger.store.uri(ledger.chain.ledger),
        )


def named_in(entries: Iterable[LedgerEntry]) -> set[str]:
    """The checkpoints that entries speak of, those that are known to be lost included."""
    found: set[str] = set()
    for entry in entries:
        if isinstance(entry, Checkpoint):
            found.add(entry.id)
        elif isinstance(entry, Loss):
            found.update(entry.checkpoint_ids)
    return found


def raise_if_short(ledger: Ledger) -> None:
    """Raise LedgerCorrupt before a run begins when entries are missing that the ledger, what lies beside it, or sealed
    artifacts know of: what it would train is not to be committed. Asks no other chain, and reads the pages of a long
    chain only where an artifact asks for it. Raises StoreFailure."""
    ledger.raise_unless_whole()
    if _unknown_artifacts(ledger):
        raise_if_unrecorded(ledger, {each.id for each in ledger.kept()}, ())


def _unknown_artifacts(ledger: Ledger) -> list[str]:
    """Sealed artifacts that none of the newest checkpoints has, without those that are old enough to be in a page.
    One listing, at the most."""
    state = ledger.state()
    known = {*(each.id for each in state.recent), *state.lost, *_owners(ledger)}
    # names sort as their times do
    oldest = min((each.id for each in state.recent), default="") if state.pages else ""
    names = _names_after(ledger, oldest)
    return [name for name in sorted(names) if name > oldest and name not in known and _is_sealed(ledger, name, names)]


def _names_after(ledger: Ledger, oldest: str) -> set[str]:
    """The names in the folder of the artifacts that sort after one. What a long chain has before them is not listed
    where all files after it are fewer."""
    state, folder = ledger.state(), ledger.chain.artifacts
    recent = len(state.recent)
    files = len(state.head.artifacts.files) if state.head else 0
    before = sum(page.count for page in state.pages)
    fewer = recent * (files + 1) < (before + recent) * 2  # of each the files and the seal, or the folder and the seal
    if not (oldest and fewer and ledger.store.lists_after) or ledger.artifact_files() is not None:
        return ledger.artifact_names()
    return {file.path[len(folder) + 1 :].partition("/")[0] for file in ledger.store.files_after(folder, oldest)}


def _owners(ledger: Ledger) -> set[str]:
    """The checkpoints, pruned perhaps, whose files others have: the entries of those follow theirs."""
    folder = f"{ledger.chain.artifacts}/"
    return {owner.removeprefix(folder) for owner in ledger.state().shared if owner.startswith(folder)}


def _is_sealed(ledger: Ledger, name: str, names: Collection[str]) -> bool:
    """Whether an attempt's artifacts are sealed; `names`: what is in the folder. Where a look is a request the names
    tell, which a listing shows with the folders."""
    if attempt_time(name) is None:
        return False
    return f"{name}{SEAL}" in names if ledger.store.remote else ledger.store.is_sealed(ledger.chain.attempt(name))


def traces(
    ledger: Ledger,
    known: Collection[str] = (),
    referenced: Collection[str] | None = None,
    artifacts: Collection[str] | None = None,
) -> dict[str, str]:
    """Checkpoints that left a trace, without those in `known`, and what it is. Lists artifacts, saves and the chains
    that go on from this one, but for what was listed before. Raises StoreFailure; LedgerCorrupt when one of those
    chains cannot be read."""
    store, chain = ledger.store, ledger.chain
    referenced = references(store, chain) if referenced is None else referenced
    found = dict.fromkeys(referenced, "another chain went on from it")
    for name, parent in trainings(store, chain, ledger.files_in(chain.partials) if store.remote else None):
        if parent is not None and attempt_time(parent) is not None:
            found[parent] = f"{store.uri(f'{chain.partials}/{name}')} was saved on top of it"
    names = ledger.artifact_names() if artifacts is None else artifacts
    for name in sorted(names):
        if name not in known and _is_sealed(ledger, name, names):
            found[name] = f"{store.uri(chain.attempt(name))} is sealed"
    return unrecorded(found, known)


def unrecorded(found: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """The traces of all but the `known` checkpoints."""
    return {name: what for name, what in found.items() if name not in known}


def sentence(found: Mapping[str, str]) -> str:
    """Which checkpoints are in no entry, and how that is known."""
    shown = "; ".join(f"{name}: {what}" for name, what in sorted(found.items())[:_SHOWN])
    more = ", …" if len(found) > _SHOWN else ""
    are = agreeing(len(found), "was committed and is", "were committed and are")
    return f"{counted(len(found), 'checkpoint')} {are} in no entry ({shown}{more})"
