"""What is expected of a chain: what its pipeline says, in the words of what checks it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class UpstreamRule(StrEnum):
    """Which checkpoint of another chain the weights of a checkpoint come from."""

    FIRST_ONLY = "only the first one has a base"
    REACHES_END = "the first of the base's that has trained as far"
    AT_BEGINNING = "the base's last one up to the beginning of the split, if there is one"
    PROMOTED = "one that was promoted"
    ANY = "any"
    ANY_OR_NONE = "any, or none"


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of a chain."""

    #: what its gates demand; None: it has none
    least_quality: float | None = None
    #: None: it has no base
    base: UpstreamRule | None = None
    #: where the checkpoints of that base lie
    follows: str = ""
    #: partitions that are never stepped over
    no_holes: frozenset[int] = frozenset()
    #: what is published again is trained again
    replays: bool = False
    #: the most partitions of one split, but for empty ones before the first that has rows
    limit: int
