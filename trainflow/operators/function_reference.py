"""Find the function that `module.path:name` names, and say which part of the name is wrong when there is none."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from trainflow.authoring.python_call import ends_forked_copies
from trainflow.errors import FailException, InputError

Function = Callable[..., Any]


def resolve(function: Function | str, root: Path) -> Function:
    """The callable that `function` is or names.

    The project root is appended to `sys.path` (last, so that it shadows nothing). Raises InputError when the name is
    not `module:name`, the module does not exist, the module imports something that is not installed, the module has no
    such attribute, or the attribute cannot be called. What a module raises while it is imported is raised as it is.
    """
    if callable(function):
        return function
    module_name, name = split_reference(function)
    append_to_path(root)
    module = _import(module_name, function)
    found: Any = module
    for part in name.split("."):
        found = _attribute(found, part, function, module)
    if not callable(found):
        raise InputError(f"{function!r}: '{name}' in {_where(module)} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def resolve_for_good(function: Function | str, root: Path) -> Function:
    """Resolve as `resolve` does, in a task: a wrong name fails it for good, since the next try would read the same
    name. Only the process that calls it returns from it.

    Raises FailException, and what a module raises while it is imported.
    """
    try:
        return ends_forked_copies(resolve(function, root))
    except InputError as error:
        raise FailException(str(error)) from error


def check_either(task_id: str, function: Function | str | None, command: Sequence[str] | None) -> None:
    """Check an operator that is given either a function or a command. Raises InputError for both, neither, a reference
    that is none and a command that is one string."""
    if (function is None) == (command is None):
        raise InputError(f"task {task_id!r}: give either 'function' or 'command'")
    if isinstance(function, str):
        split_reference(function)
    if isinstance(command, str):
        raise InputError(f"task {task_id!r}: command is a list of program and arguments, not one string")


def split_reference(reference: str) -> tuple[str, str]:
    """(module, name) of `module.path:name`. Raises InputError for anything else."""
    module, colon, name = reference.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InputError(f"{reference!r} does not name a function: write 'module.path:name'{_hint(reference)}")
    return module, name


def reference_of(function: Function | str) -> str:
    """How a function is shown to people: `module:name`."""
    if isinstance(function, str):
        return function
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '?')}:{name}"


def append_to_path(root: Path) -> None:
    """Make the project's own modules importable; last, so that they shadow nothing. Twice is once."""
    entry = str(root)
    if entry not in sys.path:
        sys.path.append(entry)
        importlib.invalidate_caches()


def _import(module_name: str, reference: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != module_name and not module_name.startswith(f"{missing}."):
            raise InputError(
                f"{reference!r}: importing {module_name} failed, because it imports '{missing}', which is not "
                "installed here"
            ) from error
        raise InputError(f"{reference!r}: there is no module '{missing}'{_near_modules(missing)}") from None


def _attribute(owner: Any, part: str, reference: str, module: ModuleType) -> Any:
    try:
        return getattr(owner, part)
    except AttributeError:
        known = [name for name, value in vars(owner).items() if callable(value) and not name.startswith("_")]
        raise InputError(f"{reference!r}: {_where(module)} has no '{part}'{_near(part, known)}") from None


def _where(module: ModuleType) -> str:
    location = getattr(module, "__file__", None)
    return f"module {module.__name__} ({location})" if location else f"module {module.__name__}"


def _near_modules(missing: str) -> str:
    """Near matches among the neighbours of a missing module; its parents were imported, or are missing themselves."""
    parent, _, last = missing.rpartition(".")
    package = sys.modules.get(parent)
    if parent and package is not None and not hasattr(package, "__path__"):
        return f": {_where(package)} is a module, not a package"
    search = list(package.__path__) if package is not None else sys.path
    known = sorted(info.name for info in pkgutil.iter_modules(search))
    if parent:
        return f" in {_where_package(package)}{_near(last, known)}"
    return f" on the path of this process{_near(last, known, show_known=False)}"


def _where_package(package: ModuleType | None) -> str:
    return str(next(iter(package.__path__), package.__name__)) if package is not None else "?"


def _near(name: str, known: Iterable[str], *, show_known: bool = True) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(f"'{match}'" for match in close) + "?"
    return f"; it has: {', '.join(names[:10])}" if names and show_known else ""


def _hint(reference: str) -> str:
    if ":" not in reference and "." in reference:
        module, _, name = reference.rpartition(".")
        return f" (did you mean '{module}:{name}'?)"
    return ""
