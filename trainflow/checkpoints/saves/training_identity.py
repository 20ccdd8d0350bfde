"""Which attempts train the same, whatever their run or database: each goes on from the saves of the others. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from trainflow.identifiers import canonical_json

#: in place of a parent, for the first checkpoint of a chain
NO_PARENT = "start"


class TrainingIdentity(NamedTuple):
    """What a training depends on beside its parent: a save is good for no other. `weights`: the checkpoint whose files
    it starts from; `generation`: how often its chain was rewound; `function`: what trains, by its
    reference, or the command."""

    weights: str | None
    generation: int
    split_digest: str
    task_id: str
    map_index: int
    function: Any
    params: dict[str, Any]


def training_name(parent_id: str | None, *what: object) -> str:
    """The name that all attempts at one training share: its parent, and a digest of whatever else it depends on."""
    return f"{parent_id or NO_PARENT}.{hashlib.sha256(canonical_json(list(what))).hexdigest()[:24]}"
