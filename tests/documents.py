"""What documents and packages say of the source: links, files, functions, headings, modules.

A function is linked as [`name`](../trainflow/package/module.py), a file as `package/module` or by a link. A package
says in the docstring of its `__init__` what each of its modules is for, and in which order to read them.
`python -m tests.documents` prints what is wrong.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.source_tree import ROOT, modules

_FENCE = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
#: `scheduler/loop`, `checkpoints/commit/commit.STEPS`, `tests/reference.py`, `docs/`
_PATH = re.compile(r"((?:[a-z_][\w-]*/)+(?:[\w-]+)?)(\.\w+)?")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def documents() -> list[Path]:
    """Every document that is read by people who use or change trainflow; not the changelog, which tells of the past."""
    return sorted([ROOT / "README.md", *ROOT.glob("CONTRIBUTING.md"), *(ROOT / "docs").glob("*.md")])


def wrong() -> list[str]:
    """Links to what is not there, and names of files and functions that are no more."""
    return [f"{path.relative_to(ROOT)}: {what}" for path in documents() for what in _wrong_in(path)]


def _wrong_in(path: Path) -> Iterator[str]:
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    for words, target in _LINK.findall(text):
        if not target.startswith(("https://", "http://")):
            yield from _wrong_link(path, words, target)
    for code in _CODE.findall(text):
        if (match := _PATH.fullmatch(code)) and not _is_there(match[1], match[2] or ""):
            yield f"no file or name `{code}`"


def _wrong_link(path: Path, words: str, target: str) -> Iterator[str]:
    name, _, anchor = target.partition("#")
    file = path.parent / name if name else path
    if not file.exists():
        yield f"no file {target}"
    elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
        yield f"no heading {target}"
    elif file.suffix == ".py" and (code := _CODE.fullmatch(words)) and not _names_it(code[1], file):
        yield f"{target} defines no {code[1]}"


def _names_it(code: str, file: Path) -> bool:
    """Whether code is the path of a file, as `package/module` too, or something that is defined there."""
    whole = file.resolve().with_suffix("").as_posix()
    return f"/{whole}".endswith(f"/{code.removesuffix('.py')}") or code in defined(file)


def _is_there(name: str, suffix: str) -> bool:
    """Whether a path that a document names is one of this repository's, or speaks of something else altogether."""
    first = name.partition("/")[0]
    known = [place for place in (ROOT, ROOT / "trainflow") if (place / first).is_dir()]
    if not known or re.search("/(a|test_a_b)(/|$)", name):
        return True  # a folder of the reader's own, or an example: `trainflow/a/b.py`
    return any(
        (place / f"{name}{suffix}").exists()
        or ((module := place / f"{name}.py").exists() and (not suffix or suffix[1:] in defined(module)))
        for place in known
    )


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(text: str) -> list[str]:
    """The commands that a document has in its indented blocks, in order, without the remarks behind them."""
    lines = (line[4:] for line in _FENCE.sub("", text).splitlines() if line.startswith("    "))
    parts = (part.strip() for line in lines for part in re.split(r"\s{2,}#", line)[0].split("&&"))
    return [part for part in parts if part.startswith(("trainflow ", "pip ", "pytest"))]


def mentioned_commands(text: str) -> list[str]:
    """All uses of the command `trainflow` in a document, in its text as well."""
    spans = [code.strip() for code in _CODE.findall(_FENCE.sub("", text))]
    return [*commands(text), *(code for code in spans if code.startswith("trainflow "))]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [textwrap.dedent(block) for found, block in _BLOCK.findall(text) if found == language]


@cache
def defined(path: Path) -> set[str]:
    """What a module defines: functions, classes, methods as `Class.method`, constants."""
    return set(_names(ast.parse(path.read_text(encoding="utf-8")), ""))


def _names(scope: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{prefix}{node.name}"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name))
        if isinstance(node, ast.ClassDef):
            yield from _names(node, f"{prefix}{node.name}.")


def package_docstrings() -> dict[str, str]:
    """Package → docstring of its `__init__`, for every package below `trainflow`."""
    packages = (module for module in modules().values() if module.path.name == "__init__.py")
    return {module.name: ast.get_docstring(module.tree) or "" for module in packages if module.name != "trainflow"}


def incomplete() -> list[str]:
    """Packages whose docstring does not say where to begin, or what breaks them."""
    wanted = ("Reading order", "hange breaks this when")
    texts = package_docstrings().items()
    return [f"{package}: no '{words}'" for package, text in texts for words in wanted if words not in text]


def unmentioned() -> list[str]:
    """Modules and packages that the docstring of their package does not name: a reader would not know of them."""
    found = []
    for package, text in package_docstrings().items():
        own = {name.rpartition(".")[2] for name in modules() if name.rpartition(".")[0] == package}
        if not text.startswith("One module a"):
            missing = own - {part for code in _CODE.findall(text) for part in re.split(r"[./]", code)}
            found.extend(f"{package}.{name}" for name in sorted(missing) if not name.startswith("_"))
    return found


def stale() -> list[str]:
    """Names in the reading order of a package that are no module of it, nor anything else of the package."""
    return [
        f"{package}: {code}"
        for package, text in package_docstrings().items()
        for paragraph in text.split("\n\n")
        if paragraph.startswith("Reading order")
        for code in _CODE.findall(paragraph)
        if not _is_known(package, code)
    ]


def _is_known(package: str, code: str) -> bool:
    if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*/?", code):
        return "/" not in code or (modules()[package].path.parent / code).exists()
    name = code.removesuffix("/").removeprefix("trainflow.")
    return any(f"{place}.{name}" in modules() for place in (package, "trainflow"))


def main() -> None:
    """Print what is wrong, one heading a rule."""
    checks = {
        "links and names": wrong(),
        "packages without reading order or what breaks them": incomplete(),
        "modules not in their package's docstring": unmentioned(),
        "no such module in a reading order": stale(),
    }
    for title, found in checks.items():
        print(f"\n== {title}: {len(found)}", *found, sep="\n   ")


if __name__ == "__main__":
    main()
