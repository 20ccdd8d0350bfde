"""The bytes of a ledger entry: how it is encoded and sealed, and what is wrong with one that was edited or is torn."""

from __future__ import annotations

from typing import get_args

import msgspec

from trainflow.checkpoints.ledger.entries import FORMAT, LedgerEntry
from trainflow.errors import LedgerCorrupt, LedgerTooNew
from trainflow.humanize import counted
from trainflow.identifiers import digest


class _KindHeader(msgspec.Struct):
    kind: str = ""
    format: int = 0


_DECODER = msgspec.json.Decoder(LedgerEntry)
_HEADER = msgspec.json.Decoder(_KindHeader)
#: what to do about one that is not what was written
RESTORE_ENTRY = (
    "Restore the file from a backup or another copy of the store, then run 'trainflow audit PIPELINE'; where there is "
    "none, 'trainflow repair PIPELINE --accept-loss' shows what can be put back"
)
_ENCODER = msgspec.json.Encoder(order="deterministic")
KINDS = frozenset(str(each.__struct_config__.tag) for each in get_args(LedgerEntry))


def encode_entry(entry: LedgerEntry) -> bytes:
    """The bytes of an entry's file, sealed."""
    data = _ENCODER.encode(msgspec.structs.replace(entry, seal="")) + b"\n"
    # the first of this name: what a person can name comes later in the file
    return data.replace(b'"seal":""', b'"seal":"%b"' % digest(data).encode(), 1)


def seal_holds(data: bytes, seal: str) -> bool:
    """Whether an entry's bytes are those that were sealed."""
    return digest(data.replace(seal.encode(), b"", 1)) == seal


def decode_entry(data: bytes, *, location: str) -> LedgerEntry:
    """The entry in a file. Raises LedgerCorrupt that says where, and whether it is torn or edited; LedgerTooNew."""
    try:
        entry: LedgerEntry = _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise _undecodable(data, error, location) from None
    if entry.format > FORMAT:
        raise _too_new(f"format {entry.format}", location)
    if entry.seal and not seal_holds(data, entry.seal):
        raise LedgerCorrupt(
            f"ledger entry {location}: it is not what was written: it was edited. {RESTORE_ENTRY}", location=location
        )
    return entry


def _undecodable(data: bytes, error: msgspec.MsgspecError, location: str) -> LedgerCorrupt:
    try:
        header = _HEADER.decode(data)
    except msgspec.MsgspecError:
        problem = f"not a whole JSON document ({error}; {counted(len(data), 'byte')}): it is torn or was edited"
        return LedgerCorrupt(f"ledger entry {location}: {problem}. {RESTORE_ENTRY}", location=location)
    if header.format > FORMAT:
        return _too_new(f"format {header.format}", location)
    if header.kind and header.kind not in KINDS:
        return _too_new(f"kind {header.kind!r}", location)
    problem = f"not a valid entry ({error}): it was edited"
    return LedgerCorrupt(f"ledger entry {location}: {problem}. {RESTORE_ENTRY}", location=location)


def _too_new(what: str, location: str) -> LedgerTooNew:
    problem = f"{what} is unknown here: it was written by a newer trainflow. Upgrade this one"
    return LedgerTooNew(f"ledger entry {location}: {problem}", location=location)
