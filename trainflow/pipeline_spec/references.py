"""Check that `module.path:name` names something. Read from the source; nothing is imported and nothing is executed."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from trainflow.pipeline_spec.problems import suggest
from trainflow.settings.project import MARKER

_REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)*)")


def check_reference(reference: str, root: Path) -> None:
    """Raise ValueError when the function cannot be there: no such module on `sys.path` or in the project `root`
    (which comes last, as it does for a task), or a module of the project whose source does not define the name."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ValueError(f"{reference!r} names no function; write module.path:name{_as_module(reference)}")
    module, name, _ = match.groups()  # what hangs on a class is for the import to say
    spec = _find(module, root)
    source = Path(spec.origin) if spec.origin else None
    if source is None or source.suffix != ".py" or not source.is_relative_to(root):
        return
    _check_defined(source, name, root)


def _as_module(reference: str) -> str:
    """Spelling of a file name that was given in place of a module."""
    file, _, name = reference.partition(":")
    if "/" not in file and not file.endswith(".py"):
        return ", for example operators.model:train"
    return f": {file.removesuffix('.py').removeprefix('./').strip('/').replace('/', '.')}:{name or 'train'}"


def _find(module: str, root: Path) -> ModuleSpec:
    parts = module.split(".")
    spec = _top(parts[0], root)
    if spec is None:
        raise ValueError(_no_module(module, parts[0], root, [str(root)]))
    for depth in range(2, len(parts) + 1):
        name = ".".join(parts[:depth])
        folders = list(spec.submodule_search_locations or ())
        inner = PathFinder.find_spec(name, folders) if folders else None
        if inner is None:
            raise ValueError(_no_module(module, name, root, folders))
        spec = inner
    return spec


def _top(name: str, root: Path) -> ModuleSpec | None:
    path = [*sys.path, str(root)]
    spec = PathFinder.find_spec(name, path)
    if spec is None:  # written a moment ago, or installed by an import hook
        importlib.invalidate_caches()
        spec = PathFinder.find_spec(name, path) or find_spec(name)
    return spec


def _no_module(module: str, missing: str, root: Path, folders: list[str]) -> str:
    parent, _, last = missing.rpartition(".")
    near = suggest(last, _modules_in(folders))
    where = f"in {parent}" if parent else f"in the project ({root}) or installed"
    elsewhere = [folder for folder in folders if parent and not Path(folder).is_relative_to(root)]
    if elsewhere:
        where += f", which is {elsewhere[0]} and not of the project ({root})"
    return f"no module {module!r}: there is no {last!r} {where}{near}{_unmarked(root)}"


def _unmarked(root: Path) -> str:
    """What to say of a project that is no more than the folder of its pipeline file."""
    if (root / MARKER).is_file():
        return ""
    return (
        f". No {MARKER.as_posix()}, which may be empty, marks a folder at or above {root} as the project: "
        "so the folder of the pipeline file is the project"
    )


def _modules_in(folders: list[str]) -> Iterator[str]:
    for folder in folders:
        for entry in sorted(Path(folder).glob("*")):
            if entry.suffix == ".py" or (entry.is_dir() and entry.name.isidentifier()):
                yield entry.stem


def _check_defined(source: Path, name: str, root: Path) -> None:
    text = source.read_text(encoding="utf-8")
    if re.search(rf"^(async +)?def {name}\b", text, re.MULTILINE):
        return  # nearly always; a parse costs a millisecond
    file = source.relative_to(root).as_posix()
    try:
        names = set(_names(ast.parse(text).body))
    except SyntaxError as error:
        raise ValueError(f"{file}:{error.lineno}: not valid Python: {error.msg}") from None
    if names & {name, "*", "__getattr__"}:
        return
    raise ValueError(f"{file} defines no {name!r}{suggest(name, names)}")


def _names(body: list[ast.stmt]) -> Iterator[str]:
    """What a module's statements define at its top level; `*` for a star import, which may define anything."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
            case ast.Assign() | ast.AnnAssign():
                yield from _targets(statement)
            case _:
                for inner in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(statement, inner, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _names(handler.body)


def _targets(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
