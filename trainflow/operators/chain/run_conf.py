"""What the conf of a run says to the operators of a chain, beside the params of its functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: train the holes that have arrived, not what comes next
CONF_REPAIR = "repair"
#: its value where the run does so instead of its own work: when nothing is left, it triggers an ordinary run
REPAIR_FIRST = "first"
#: in the conf of such a run: those that a person or a gate skipped, too
CONF_SKIPPED = "skipped"
#: the checkpoint of its upstream that the run was triggered with
CONF_INIT_FROM = "init_from"
_NO_PARAMS = (CONF_REPAIR, CONF_SKIPPED, CONF_INIT_FROM)


def params_of(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a function is given of a run's params or conf: without what only tells the run where to begin."""
    return {name: value for name, value in (values or {}).items() if name not in _NO_PARAMS}
