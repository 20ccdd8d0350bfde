"""Ledger entries and the bytes of their files."""

from __future__ import annotations

from typing import get_args

import msgspec

from trainflow.checkpoints.ledger.entries import FORMAT, LedgerEntry
from trainflow.errors import LedgerCorrupt
from trainflow.identifiers import digest
from trainflow.pluralize import counted


class _KindHeader(msgspec.Struct):
    kind: str = ""
    format: int = 0


_DECODER = msgspec.json.Decoder(LedgerEntry)
_HEADER = msgspec.json.Decoder(_KindHeader)
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
    """The entry in a file. Raises LedgerCorrupt that says where, and whether it is torn, edited or simply newer."""
    try:
        entry: LedgerEntry = _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise LedgerCorrupt(f"ledger entry {location}: {_why(data, error)}", location=location) from None
    if entry.format > FORMAT:
        raise LedgerCorrupt(f"ledger entry {location}: {_newer(f'format {entry.format}')}", location=location)
    if entry.seal and not seal_holds(data, entry.seal):
        raise LedgerCorrupt(
            f"ledger entry {location}: it is not what was written: it was edited. Restore the file from a backup, then "
            "run 'trainflow audit'",
            location=location,
        )
    return entry


def _why(data: bytes, error: msgspec.MsgspecError) -> str:
    try:
        header = _HEADER.decode(data)
    except msgspec.MsgspecError:
        return (
            f"not a whole JSON document ({error}; {counted(len(data), 'byte')}): it is torn or was edited. "
            "Restore the file from a backup or another copy of the store, then run 'trainflow audit'"
        )
    if header.format > FORMAT:
        return _newer(f"format {header.format}")
    if header.kind and header.kind not in KINDS:
        return _newer(f"kind {header.kind!r}")
    return f"not a valid entry ({error}): it was edited. Restore the file from a backup, then run 'trainflow audit'"


def _newer(what: str) -> str:
    return f"{what} is unknown here: it was written by a newer trainflow. Upgrade this one"
