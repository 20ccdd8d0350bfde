"""Listings over several chains: which chain a row is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey


_NAMES = ("pipeline", "stage", "branch")


def columns_of(keys: Sequence[ChainKey]) -> dict[str, str]:
    """The columns that tell these chains apart; none for one chain."""
    return {name: name.upper() for name in _NAMES if len({getattr(key, name) for key in keys}) > 1}


def said_of(key: ChainKey, keys: Sequence[ChainKey]) -> str:
    """What a line about this chain begins with, among lines about others: `base    `; nothing where it is alone."""
    widths = {name: max(len(getattr(each, name)) for each in keys) for name in columns_of(keys)}
    return "".join(f"{getattr(key, name):<{width}}  " for name, width in widths.items())
