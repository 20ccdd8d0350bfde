"""What the samples task says beside the split it hands over: when that was, how much is ready beyond it, and whether it
repairs a hole."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.samples.grid import Grid

if TYPE_CHECKING:
    from trainflow.samples.lag import Lag

#: in the conf of a run: train the holes that have arrived, not what comes next
CONF_REPAIR = "repair"
#: its value where the run does so instead of its own work: when nothing is left, it triggers an ordinary run
REPAIR_FIRST = "first"
#: in the conf of such a run: those that a person or a gate skipped, too
CONF_SKIPPED = "skipped"
#: in the conf of a run: the checkpoint of its base that it was triggered with
CONF_INIT_FROM = "init_from"
_NO_PARAMS = (CONF_REPAIR, CONF_SKIPPED, CONF_INIT_FROM)
#: in the XCom: what is ready beyond the split, for the mirror
LAG_PARTITIONS = "lag_partitions"
LAG_SECONDS = "lag_seconds"
_AT = "handed_over_at"
_GRID = "grid"
_REPAIR = "repair"


def params_of(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a function is given of a run's params or conf: without what only tells the run where to begin."""
    return {name: value for name, value in (values or {}).items() if name not in _NO_PARAMS}


def handover(split: dict[str, Any], now: datetime, lag: Lag | None, *, repair: bool, grid: Grid) -> dict[str, Any]:
    """The XCom of the samples task, from that of the split. `lag`: what is ready beyond it; `grid`: its table's."""
    behind = {} if lag is None else {LAG_PARTITIONS: lag.partitions, LAG_SECONDS: lag.seconds}
    known = {_AT: now.isoformat(), _GRID: msgspec.to_builtins(grid)}
    return {**split, **known, **behind, **({_REPAIR: True} if repair else {})}


def grid_of_split(split: Mapping[str, Any]) -> Grid | None:
    """The grid of the table that the split is of."""
    return msgspec.convert(split[_GRID], Grid) if _GRID in split else None


def is_repair(split: Mapping[str, Any]) -> bool:
    """Whether the split fills a hole."""
    return bool(split.get(_REPAIR))


def seconds_since_handover(split: Mapping[str, Any], now: datetime) -> float | None:
    """How long the run has been at this split; None where nobody noted when it began, or a clock went back."""
    try:
        seconds = (now - datetime.fromisoformat(split[_AT])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
    return seconds if seconds >= 0 else None
