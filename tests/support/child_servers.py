"""Servers that a test run starts, and that must not be there when it was killed."""

from __future__ import annotations

import shutil
from pathlib import Path


def dies_along() -> list[str]:
    """What stands before a command whose process is killed when this one ends, however that ends. Empty where the
    system has nothing of the kind."""
    found = shutil.which("setpriv")
    return [found, "--pdeathsig", "KILL", "--"] if found else []


def script_that_dies_along(folder: Path, program: Path) -> Path:
    """The same as a program of its own, for libraries that start one by its path."""
    script = folder / program.name
    script.write_text(f'#!/bin/sh\nexec {" ".join(dies_along())} "{program}" "$@"\n')
    script.chmod(0o755)
    return script
