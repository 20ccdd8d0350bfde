"""A ledger as plain JSON: what an audit reads. Nothing of the writer's types, rules or arithmetic is trusted.

What is wrong is collected, not raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from trainflow.checkpoints.entries import ArtifactFile, Artifacts
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.timeline import interval_of, time_of
from trainflow.identifiers import digest

Raw = dict[str, Any]
CHECKPOINTS = ("checkpoint", "hole filled")


@dataclass
class RawLedger:
    """Every entry that can be read, in order, and what is wrong with the files."""

    ledger: Ledger
    entries: list[Raw] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def read_raw(ledger: Ledger) -> RawLedger:
    """Every entry there is, the digest chain computed again. A bad one is reported and the next is looked at."""
    found = RawLedger(ledger)
    store, previous, last = ledger.store, "", 0
    for number, path in _paths(found):
        if number != last + 1:
            missing = f"{last + 1}" if number == last + 2 else f"{last + 1} to {number - 1}"
            found.problems.append(f"entry {missing} is missing, entry {number} is there ({store.uri(path)})")
        data = store.read(path)
        entry = _parse(data)
        if entry is None:
            found.problems.append(f"{store.uri(path)} is torn, edited or written by a newer trainflow")
        else:
            if entry.get("previous") != previous or entry.get("sequence") != number:
                found.problems.append(f"{store.uri(path)} does not follow the bytes of the entry before it")
            found.entries.append(entry)
        previous, last = digest(data), number
    return found


def _paths(found: RawLedger) -> list[tuple[int, str]]:
    ledger, paths = found.ledger, []
    for file in ledger.store.files(ledger.chain.ledger):
        name = file.path.rsplit("/", 1)[-1].removesuffix(".json")
        if name.isdecimal() and file.path == ledger.chain.entry(int(name)):
            paths.append((int(name), file.path))
        else:
            found.notices.append(f"{ledger.store.uri(file.path)} is no ledger entry")
    return sorted(paths)


def _parse(data: bytes) -> Raw | None:
    try:
        entry: Raw = msgspec.json.decode(data)
        _SHAPES[entry["kind"]](entry)
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError):
        return None
    return entry


def _checkpoint(entry: Raw) -> None:
    split = entry["split"]
    for each in [*split["partitions"], *split.get("holes", [])]:
        interval_of(each)
    time_of(split["start"])
    time_of(split["end"])
    time_of(entry["watermark"])
    _texts(entry["id"], entry["parent_id"] or "")
    msgspec.convert(entry["artifacts"], Artifacts)


def _fork(entry: Raw) -> None:
    time_of(entry["watermark"])
    _texts(entry["origin"]["checkpoint_id"], *entry["origin"]["chain"].values())


def _adoption(entry: Raw) -> None:
    time_of(entry["watermark"])
    _texts(entry["uri"])
    msgspec.convert(entry["files"], list[ArtifactFile])


def _skip(entry: Raw) -> None:
    interval_of(entry)
    _texts(entry["parent_id"] or "")


def _texts(*values: object) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("not a text")


#: raises for an entry of this kind that lacks what the audit will look at
_SHAPES: dict[str, Callable[[Raw], None]] = {
    "checkpoint": _checkpoint,
    "hole filled": _checkpoint,
    "skip": _skip,
    "promotion": lambda entry: _texts(entry["checkpoint_id"], entry["alias"]),
    "prune": lambda entry: _texts(*entry["checkpoint_ids"]),
    "rewind": lambda entry: _texts(entry["to_checkpoint_id"] or ""),
    "fork": _fork,
    "adoption": _adoption,
}
