"""Which files of the package handle a checkpoint that is committed, from the task to the ledger entry in the store.

A function handles it where a local of its holds the checkpoint in any of its forms: its id, the path or the description
of its files, the request to commit it, the entry and that entry's bytes. Not counted: methods of these values
themselves, and the ground floor, to which it is a name or some bytes like any others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from types import FrameType
from typing import Any

import msgspec

from tests.tools.trace_path import PACKAGE, floors

#: how deep a value is looked into: work → request → artifacts → path
_DEEP = 4


class CommitTrace:
    """What was seen. `files`: file → its functions, in the order in which they were reached. To be given to
    `sys.setprofile` before the task, and looks no further than the creation of the entry."""

    def __init__(self, checkpoint_id: str, *, begins: str, ends: str) -> None:
        """`begins`, `ends`: functions by their qualified names, between which is looked."""
        self._id = checkpoint_id
        self._begins, self._ends = begins, ends
        self._looks = False
        self._ground = {name for name, floor in floors().items() if floor >= floors()["errors"] - 1}
        self.files: dict[str, list[str]] = {}
        self.has_ended = False

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """See `sys.setprofile`."""
        name = frame.f_code.co_qualname
        path = frame.f_code.co_filename
        if event not in ("call", "return") or self.has_ended or not path.startswith(f"{PACKAGE}/"):
            return
        self._looks |= name == self._begins
        file = path.removeprefix(f"{PACKAGE}/")
        if self._looks and "<" not in name and file.partition("/")[0].removesuffix(".py") not in self._ground:
            seen = self.files.get(file, [])
            if name not in seen and self._handles(frame):
                self.files.setdefault(file, []).append(name)
        self.has_ended = self._looks and event == "return" and name == self._ends

    def __str__(self) -> str:
        count = sum(map(len, self.files.values()))
        lines = (f"  {file}  {', '.join(functions)}" for file, functions in self.files.items())
        return "\n".join([f"{len(self.files)} files, {count} functions", *lines])

    def _handles(self, frame: FrameType) -> bool:
        return any(self._holds(value, _DEEP) for name, value in frame.f_locals.items() if name != "self")

    def _holds(self, value: Any, deep: int) -> bool:
        if isinstance(value, str | PurePath):
            return self._id in str(value)
        if isinstance(value, bytes):
            return self._id.encode() in value
        return deep > 0 and any(self._holds(part, deep - 1) for part in _parts(value))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name, None) for name in value.__struct_fields__]
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in fields(value)]
    return []
