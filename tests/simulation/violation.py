"""What a simulation finds."""

from __future__ import annotations


class Violation(AssertionError):
    """Something that must always be true is not. `invariant` names it."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant
