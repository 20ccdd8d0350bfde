"""The value of an argument that was not given, where None means something."""

from __future__ import annotations

from typing import Final


class ArgNotSet:
    """Type of `NOTSET`; there is one instance."""

    def __repr__(self) -> str:
        return "NOTSET"

    def __bool__(self) -> bool:
        return False


NOTSET: Final = ArgNotSet()
