"""Options that are written for fsspec, taken one by one: what is left over is what obstore has no word for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: of every file system of fsspec: how it keeps listings and itself, which obstore does not
OPTIONS_OF_FSSPEC = frozenset(
    {"use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "asynchronous", "driver"}
)


class OptionNotMapped(Exception):
    """An option that obstore has no word for. The text names it, without its value."""


class FsspecOptions:
    """Options, of which `take` takes one. `where`: the option that these are in."""

    def __init__(self, options: Mapping[str, Any] | None, where: str = "") -> None:
        self._left = dict(options or {})
        self._where = where
        if not where:
            self.skip(*OPTIONS_OF_FSSPEC)

    def take(self, *names: str) -> Any:
        """The value of the first of these options that is given; None. All of them count as taken."""
        values = [self._left.pop(name, None) for name in names]
        return next((value for value in values if value is not None), None)

    def text(self, *names: str) -> str:
        """The same, of an option that is a text. Raises OptionNotMapped for anything else."""
        found = self.take(*names)
        if found is not None and not isinstance(found, str):
            raise OptionNotMapped(f"{self._where}{names[0]}")
        return found or ""

    def seconds(self, *names: str) -> float | None:
        """The same, of a duration in seconds."""
        found = self.take(*names)
        if found is not None and not isinstance(found, int | float):
            raise OptionNotMapped(f"{self._where}{names[0]}")
        return found

    def inner(self, name: str) -> FsspecOptions:
        """The options inside of one."""
        found = self._left.pop(name, None)
        if found is not None and not isinstance(found, Mapping):
            raise OptionNotMapped(f"{self._where}{name}")
        return FsspecOptions(found, f"{self._where}{name}.")

    def skip(self, *names: str) -> None:
        """Take options that only say how fast fsspec is."""
        for name in names:
            self._left.pop(name, None)

    def end(self) -> None:
        """Raise OptionNotMapped for what was not taken."""
        for name, value in self._left.items():
            if value is not None:
                raise OptionNotMapped(f"{self._where}{name}")
