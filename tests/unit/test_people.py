"""The judge of a session is worth nothing when it trusts the program, or lets a refusal pass that helps no one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import people
from tests.people.commands import Ended
from tests.people.words import problems_of

FOLDER = Path(people.__file__).parent


def test_people_import_nothing_of_the_program() -> None:
    found = []
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.name}: {name}" for name in names if name.split(".")[0] == "trainflow"]
            found += [f"{path.name}: {name}" for name in names if name.startswith("tests.") and "people" not in name]
    assert found == []


def interrupted(*files: str) -> str:
    """What Python prints that is interrupted while it reads these files."""
    frames = [f'  File "/usr/lib/{file}", line 9, in <module>\n    import typing\n' for file in files]
    return f"Traceback (most recent call last):\n{''.join(frames)}KeyboardInterrupt\n"


@pytest.mark.parametrize(
    ("code", "output", "struck", "wrong"),
    [
        (0, "caught up", False, ""),
        (130, "stopped", False, ""),
        (2, "error: no pipeline is called 'click'; did you mean 'clicks'? There are: clicks", False, ""),
        (1, "error: stopped by a gate: 'trainflow resume clicks' decides", False, ""),
        (-9, "", True, ""),
        (-9, "", False, "died of signal 9"),
        (None, "1 running", False, "hangs"),
        (3, "", False, "ended with 3"),
        (1, "", False, "does not say what to do"),
        (2, "error: it is bad", False, "does not say what to do"),
        (1, "Traceback (most recent call last):\n…", False, "shows 'Traceback"),
        (0, "warning: KeyError: 'x'", False, "shows 'KeyError'"),
        (-2, interrupted("trainflow/__init__.py", "typing.py"), True, ""),
        (-2, interrupted("trainflow/__init__.py", "typing.py"), False, "shows 'Traceback"),
        (-2, interrupted("trainflow/cli/entry.py", "trainflow/cli/main.py"), True, "shows 'Traceback"),
        (1, interrupted("trainflow/cli/entry.py"), True, "shows 'Traceback"),
    ],
)
def test_problems_of_command(code: int | None, output: str, struck: bool, wrong: str) -> None:
    found = problems_of(Ended(("start", "click"), code, output, struck))
    assert bool(found) == bool(wrong)
    assert wrong in "".join(found)
