"""The commands that messages of the program tell its users to type, out of the strings of its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from tests.documents import ROOT
from trainflow.cli import main

_QUOTED = re.compile(r"'(trainflow [a-z][^'\n]*)'")
#: stands for a value that is put into a message
_VALUE = "VALUE"


def told_commands() -> Iterator[tuple[str, str]]:
    """Place and command of each `'trainflow …'` in a message; docstrings and help texts speak of commands by name."""
    for path in sorted((ROOT / "trainflow").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node, text in _strings(ast.parse(source)) if "'trainflow " in source else ():
            for command in _QUOTED.findall(text):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", command


def _strings(scope: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    for node in ast.iter_child_nodes(scope):
        if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or _is_help(node):
            continue
        if isinstance(node, ast.JoinedStr):
            yield node, "".join(str(each.value) if isinstance(each, ast.Constant) else _VALUE for each in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node, node.value
        else:
            yield from _strings(node)


def _is_help(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg == "help"


@cache
def root_command() -> Any:
    """The command `trainflow`, as it is parsed."""
    return typer.main.get_command(main.application())


def wrong_with(command: str) -> str | None:
    """What the command line would refuse of a command: an unknown name or option, an argument that is missing."""
    words, found = command.split()[1:], root_command()
    path: list[str] = []
    while hasattr(found, "commands"):
        if not words and found.invoke_without_command:
            return None
        if not words or words[0] not in found.commands:
            return f"no command {' '.join([*path, *words[:1]])}"
        path.append(words.pop(0))
        found = found.commands[path[-1]]
    return _wrong_words(found, words)


def _wrong_words(command: Any, words: list[str]) -> str | None:
    options = {option: param for param in command.params if param.param_type_name == "option" for option in param.opts}
    required = sum(param.required for param in command.params if param.param_type_name == "argument")
    given = 0
    while words:
        word = words.pop(0)
        name = word.partition("=")[0]
        if not word.startswith("-"):
            given += 1
        elif name not in options:
            return f"no option {name}"
        elif not options[name].is_flag and "=" not in word:
            if not words:
                return f"no value of {name}"
            words.pop(0)
    return f"{required} arguments are required, {given} given" if given < required else None
