"""Placement groups of one node, which has room for all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future


class PlacementGroup:
    """Places that are there."""

    def ready(self) -> Future[bool]:
        """Something that is done when they are."""
        future: Future[bool] = Future()
        future.set_result(True)
        return future


def placement_group(bundles: Sequence[dict[str, float]], strategy: str) -> PlacementGroup:
    """Ask for places."""
    assert strategy in ("SPREAD", "STRICT_SPREAD", "PACK", "STRICT_PACK")
    assert all(bundle and all(amount > 0 for amount in bundle.values()) for bundle in bundles)
    return PlacementGroup()


def remove_placement_group(group: PlacementGroup) -> None:
    """Give them back."""


def get_node_ip_address() -> str:
    """The address of this node."""
    return "127.0.0.1"
