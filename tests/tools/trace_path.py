"""Which files of the package handle the path that `trainflow start` is given, and where it climbs to a higher floor.

In a project: `python -m tests.tools.trace_path pipelines/example.yaml`. Trains the pipeline in this process and looks
at each call and return of the package's functions: does a local of theirs hold the path, as it was typed, absolute, or
as the database has it? A climb is a call from a function that holds it to one on a higher floor that holds it, too.
"""

from __future__ import annotations

import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePath
from types import FrameType
from typing import Any

import trainflow
from trainflow.cli.main import run

PACKAGE = Path(trainflow.__file__).parent


def floors() -> dict[str, int]:
    """Package or module below `trainflow` → its floor, counted from the top."""
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    return {name.strip(): number for number, layer in enumerate(layers) for name in layer.split("|")}


class Trace:
    """What was seen. `files`: file → its functions; `climbs`: (caller, callee)."""

    def __init__(self, given: str) -> None:
        path = Path(given).resolve()
        self._values = {given, str(Path(given)), str(path)}
        self._floors = floors()
        self.files: dict[str, set[str]] = {}
        self.climbs: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """See `sys.setprofile`."""
        file = self._file(frame)
        if event not in ("call", "return") or file is None or not self._holds(frame):
            return
        self.files.setdefault(file, set()).add(frame.f_code.co_qualname)
        caller = next(self._callers(frame), None) if event == "call" else None
        if caller is not None and self._holds(caller):
            above = self._file(caller) or ""
            if self._floor(file) < self._floor(above):
                self.climbs.add((f"{above}:{caller.f_code.co_qualname}", f"{file}:{frame.f_code.co_qualname}"))

    def _file(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        return name.removeprefix(f"{PACKAGE}/") if name.startswith(f"{PACKAGE}/") else None

    def _callers(self, frame: FrameType) -> Iterator[FrameType]:
        caller = frame.f_back
        while caller is not None:
            if self._file(caller) is not None:
                yield caller
            caller = caller.f_back

    def _holds(self, frame: FrameType) -> bool:
        return any(self._is_path(value) for value in frame.f_locals.values())

    def _is_path(self, value: object) -> bool:
        # by type: to compare anything else with a text may be costly, or do something
        return (type(value) is str or isinstance(value, PurePath)) and str(value) in self._values

    def _floor(self, file: str) -> int:
        return self._floors.get(file.partition("/")[0].removesuffix(".py"), -1)


def main() -> None:
    """Trace a training, and print what was seen."""
    trace = Trace(sys.argv[1])
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        run(["start", sys.argv[1], "--plain"])
    finally:
        sys.setprofile(None)
    print(f"{len(trace.files)} files, {len(trace.climbs)} climbs")
    for file, functions in sorted(trace.files.items()):
        print(f"  {file}  {', '.join(sorted(functions))}")
    for caller, callee in sorted(trace.climbs):
        print(f"  climb: {caller} → {callee}")


if __name__ == "__main__":
    main()
