"""What the samples task says beside the split it hands over: when that was, and whether it repairs a hole."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

#: in the conf of a run: train the holes that have arrived, not what comes next
CONF_REPAIR = "repair"
#: in the conf of such a run: those that a person or a gate skipped, too
CONF_SKIPPED = "skipped"
#: XCom of the samples task: the conf of the run that is triggered after this one
XCOM_NEXT_CONF = "next_conf"
_AT = "handed_over_at"
_REPAIR = "repair"


def handover(split: dict[str, Any], now: datetime, *, repair: bool) -> dict[str, Any]:
    """The XCom of the samples task, from that of the split."""
    return {**split, _AT: now.isoformat(), **({_REPAIR: True} if repair else {})}


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
