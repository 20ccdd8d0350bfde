"""Where an actor is placed."""

from __future__ import annotations

from typing import Any


class PlacementGroupSchedulingStrategy:
    """A place of a group."""

    def __init__(self, placement_group: Any, placement_group_bundle_index: int) -> None:
        self.index = placement_group_bundle_index
