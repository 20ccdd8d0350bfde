"""What the source of the package says about itself, read with `ast`: modules, imports, names, lengths, docstrings.

`python -m tests.source_tree` prints everything that `tests/unit/test_source_tree.py` would complain of.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

ROOT = Path(__file__).parent.parent
MODULE_LINES = 400
FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """A module of the package: dotted name, file, syntax tree and number of lines."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def package(self) -> str:
        """The package that relative names of it start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@cache
def modules() -> dict[str, Module]:
    """All modules of the package by their dotted names, migrations left out: they are a record and never change."""
    found = {}
    for path in sorted((ROOT / "trainflow").rglob("*.py")):
        if "versions" in path.parts:
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, ast.parse(text), text.count("\n"))
    return found


def long_modules() -> list[str]:
    """Modules of more than MODULE_LINES lines."""
    return [f"{module.name}: {module.lines} lines" for module in modules().values() if module.lines > MODULE_LINES]


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def long_functions() -> list[str]:
    """Functions of more than FUNCTION_LINES lines, from the `def` to the last one."""
    return [
        f"{module.name}.{function.name}: {lines} lines"
        for module in modules().values()
        for function in _functions(module.tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
    ]


def long_test_modules() -> list[str]:
    """Modules of the tests of more than MODULE_LINES lines."""
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in sorted((ROOT / "tests").rglob("*.py"))}
    return [f"{path.relative_to(ROOT)}: {count} lines" for path, count in lines.items() if count > MODULE_LINES]


def misplaced_tests() -> list[str]:
    """Unit tests that do not stand where the module stands that they test: `trainflow/a/b.py` has
    `tests/unit/a/test_b.py`, or several `test_b_….py`; what concerns a package `a` as a whole is in `test_a….py`."""
    unit = ROOT / "tests" / "unit"
    return [
        str(path.relative_to(ROOT))
        for path in sorted(unit.rglob("test_*.py"))
        # the example is a project of its own, beside the package
        if path.parent != unit / "example" and not _has_module(path.parent.relative_to(unit), path.stem[5:])
    ]


def _has_module(folder: Path, name: str) -> bool:
    package = ROOT / "trainflow" / folder
    beside = [ROOT / "tests"] if folder == Path() else []
    known = {package.name, *(each.stem for place in (package, *beside) for each in place.glob("*"))}
    return any(name == each or name.startswith(f"{each}_") for each in known)


#: what a person does and asks, and what that is about
FUNCTIONS_OF_PEOPLE = ("trainflow.actions", "trainflow.insight", "trainflow.workspace")
#: to hold a connection or a row is not to say SQL; to know an error of the driver neither
_NO_SQL = {"Connection", "Row", "DBAPIError"}


def effects_of_people() -> list[str]:
    """Where what people do or ask prints, reads a clock of its own, or says SQL: that is for the floors around it."""
    return [
        f"{name}:{node.lineno}"
        for name, module in modules().items()
        if name.startswith(FUNCTIONS_OF_PEOPLE)
        for node in ast.walk(module.tree)
        if _is_effect(node)
    ]


def _is_effect(node: ast.AST) -> TypeGuard[ast.expr | ast.stmt]:
    match node:
        case ast.Call(func=ast.Name(id="print" | "input")):
            return True
        case ast.ImportFrom(module="trainflow.clock", names=names):
            return any(name.name == "SystemClock" for name in names)
        case ast.ImportFrom(module=str(module), names=names):
            return module.partition(".")[0] == "sqlalchemy" and not {name.name for name in names} <= _NO_SQL
    return False


def _for_type_checkers(tree: ast.Module) -> set[ast.AST]:
    """The statements under `if TYPE_CHECKING`."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


@cache
def imports(*, type_checking: bool) -> dict[str, set[str]]:
    """What each module imports of the package, wherever in it: at the top, in a function, in a branch.

    `from package import name` is an import of `package.name` where that is a module, of the package otherwise. With
    `type_checking`, what only a type checker sees counts as well.
    """
    known = modules()
    graph: dict[str, set[str]] = {}
    for module in known.values():
        skipped = set() if type_checking else _for_type_checkers(module.tree)
        found: set[str] = set()
        for node in ast.walk(module.tree):
            if node in skipped:
                continue
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.update(_targets(module, node))
        graph[module.name] = {name for name in found if name in known} - {module.name}
    return graph


def _targets(module: Module, node: ast.ImportFrom) -> Iterator[str]:
    source = node.module or ""
    if node.level:
        base = module.package.split(".")
        source = ".".join([*base[: len(base) - node.level + 1], *([source] if source else [])])
    for alias in node.names:
        full = f"{source}.{alias.name}"
        yield full if full in modules() else source


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (strongly connected components of more than one), by Tarjan."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def repeated_classes() -> list[str]:
    """Names that more than one class of the package has, whichever modules they are in."""
    homes = defaultdict(list)
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module.name)
    return [f"{name}: {', '.join(found)}" for name, found in sorted(homes.items()) if len(found) > 1]


def names_given_twice(found: Iterable[Module] | None = None) -> list[str]:
    """Constants, functions and classes that a module gives a name that it has given before: two modules that are joined
    may have had one each, and all that use the first use the second then."""
    return [
        f"{module.name}: {name}"
        for module in (modules().values() if found is None else found)
        for name, count in Counter(_given(module.tree)).items()
        if count > 1
    ]


def _given(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not _overloaded(node):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for target in targets for each in ast.walk(target) if _is_given(each))


def _is_given(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def undocumented() -> list[str]:
    """Modules, public classes, functions and methods without a docstring.

    A method that overrides one of a base class has the contract of the interface and needs none of its own. Nor do
    functions inside functions, methods of private classes, overloads, and tests, whose names say it.
    """
    missing = [module.name for module in modules().values() if not ast.get_docstring(module.tree)]
    for module in modules().values():
        missing.extend(f"{module.name}.{name}" for name in _undocumented(module.tree, ""))
    return missing


def _undocumented(scope: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in scope.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith(("_", "test_")) or _overloaded(node):
            continue
        inherits = isinstance(scope, ast.ClassDef) and _has_interface(scope)
        if not ast.get_docstring(node) and not (inherits and isinstance(node, Function)):
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node, f"{prefix}{node.name}.")


def _has_interface(node: ast.ClassDef) -> bool:
    """Whether a class inherits methods of the package, or of a library, whose contract is written there."""
    bases = (ast.unparse(base).partition("[")[0] for base in node.bases)
    return any(base not in ("Protocol", "ABC", "Generic", "NamedTuple", "msgspec.Struct") for base in bases)


#: what begins neither with a verb nor with a noun (`What …`, `Where …`, `Whether …` are clauses that stand for one)
_OPENINGS = frozenset(
    "Is Are Was Does Did Has Had Can It Its Itself They These Those This That As There Here Not Only Then So "  # noqa: SIM905
    "Whoever Whatever Somebody Someone Nobody Something Everything Nothing Because If While Until Inside "
    "From In At Of On For By With Once Now".split()
)


def odd_openings() -> list[str]:
    """Docstrings whose first word is a pronoun, a preposition or a question: they begin with a verb or a noun."""
    found = []
    for module in modules().values():
        documented = (node for node in ast.walk(module.tree) if isinstance(node, Function | ast.ClassDef | ast.Module))
        for node in documented:
            words = (ast.get_docstring(node) or "").split()
            if words and words[0].strip(".,:;?") in _OPENINGS:
                found.append(f"{module.name}.{getattr(node, 'name', '')}: {' '.join(words[:6])} …")
    return found


def never_read(names: Iterable[str], *, within: str) -> list[str]:
    """Those of these names that no module reads as an attribute, but for those whose path begins with `within`: what a
    person sets or what is stored is to be of use elsewhere."""
    read = {
        node.attr
        for name, module in modules().items()
        if not name.startswith(within)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    return sorted(set(names) - read)


def ignored_options() -> list[str]:
    """Parameters of commands that their function does not use: an option that is taken and ignored."""
    return [
        f"{name}.{function.name}: {parameter}"
        for name, module in modules().items()
        if name.startswith("trainflow.cli.commands.")
        for function in module.tree.body
        if isinstance(function, Function) and not function.name.startswith("_")
        for parameter in unused_parameters(function)
    ]


def unused_parameters(function: Function) -> list[str]:
    """The parameters of a function that its body does not name."""
    used = {node.id for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [each.arg for each in named if each.arg not in used]


def _overloaded(node: Function | ast.ClassDef) -> bool:
    return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)


def main() -> None:
    """Print what is wrong, one heading a rule."""
    checks = {
        "modules too long": long_modules(),
        "functions too long": long_functions(),
        "modules of tests too long": long_test_modules(),
        "tests misplaced": misplaced_tests(),
        "circles": [" ".join(group) for group in circles(imports(type_checking=False))],
        "circles with imports for type checkers": [" ".join(group) for group in circles(imports(type_checking=True))],
        "class names twice": repeated_classes(),
        "names given twice": names_given_twice(),
        "no docstring": undocumented(),
        "options that commands ignore": ignored_options(),
        "docstrings that begin with neither a verb nor a noun": odd_openings(),
    }
    for title, found in checks.items():
        print(f"\n== {title}: {len(found)}", *found, sep="\n   ")


if __name__ == "__main__":
    main()
