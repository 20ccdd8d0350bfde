"""Write docs/reference.md from the program itself: `python -m tests.reference`. A test holds the two together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from trainflow.cli import main
from trainflow.insight.settings import SettingLine, settings_in_force
from trainflow.pipeline_spec.load import json_schema
from trainflow.settings.project import Project

FILE = Path(__file__).parent.parent / "docs" / "reference.md"
_HEAD = """\
# Reference

Every command, setting and key of a pipeline file. This page is written from the program (`python -m tests.reference`);
`trainflow COMMAND --help`, `trainflow config list` and `trainflow schema` say the same.

- [Commands](#commands)
- [Settings](#settings)
- [Keys of a pipeline file](#keys-of-a-pipeline-file)

Exit codes of every command: 0 done · 1 the chain or a task failed, or something is wrong with what was looked at ·
2 wrong input · 130 interrupted.
"""
_COMMANDS = """
## Commands

PIPELINE is a pipeline file, its name in `pipelines/`, or the id of a DAG. What stands behind "JSON:" are the keys that
`--json` prints: they are stable, new ones may be added. Times are ISO 8601 in UTC, durations are seconds, sizes bytes.
"""
_SETTINGS = """
## Settings

In `configs/trainflow.toml`, or in the environment: `engine.poll_seconds` is `TRAINFLOW__ENGINE__POLL_SECONDS`.
Executors are configured by name: `executors.local.slots` is `slots` of the table `[executors.local]`, and
`TRAINFLOW__EXECUTORS__LOCAL__SLOTS`. Besides `local` each has `type`, `slots`, `nodes` and what is its own: see
[the fleet](fleet.md).

| setting | default | unit | meaning |
|---|---|---|---|
"""
_KEYS = """
## Keys of a pipeline file

A stage under `stages:` may have each key of the file except `pipeline`, `branch`, `tags` and `stages`.

| key | type | default | meaning |
|---|---|---|---|
"""


def reference() -> str:
    """The whole page."""
    root = typer.main.get_command(main.application())
    commands = "".join(_command(path, command) for path, command in commands_of(root))
    settings = "".join(_setting(line) for line in settings_in_force(_nowhere(), {}))
    keys = "".join(_keys(json_schema()))
    return f"{_HEAD}{_COMMANDS}{commands}{_SETTINGS}{settings}{_KEYS}{keys}"


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(name, command) of everything that can be typed, in the order of the help."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield " ".join((*path, name)), command
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def _nowhere() -> Project:
    from trainflow.settings.project import project_at

    return project_at(Path("/nowhere"))


def _command(path: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join([path, *(each.metavar for each in arguments)])
    text = _paragraphs(command.help or "")
    lines = [f"- `{_spelt(each)}`: {_cell(each.help or '')}\n" for each in options]
    return f"\n### trainflow {usage}\n\n{text}\n" + ("\n" if lines else "") + "".join(lines)


def _paragraphs(help_text: str) -> str:
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", help_text.strip())]
    return "\n\n".join(f"JSON: `{part[6:].rstrip('.')}`" if _is_one_value(part) else part for part in parts)


def _is_one_value(part: str) -> bool:
    return part.startswith("JSON: ") and "`" not in part


def _spelt(option: Any) -> str:
    names = "/".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.metavar}"


def _setting(line: SettingLine) -> str:
    default = line.default if line.default not in (None, "", {}, ()) else ""
    return f"| `{line.name}` | {_cell(_written(default))} | {_cell(line.unit)} | {_cell(line.meaning)} |\n"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`" if value != "" else ""


def _keys(schema: dict[str, Any]) -> Iterator[str]:
    yield from _section(schema, schema, "")


def _section(section: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, found in section["properties"].items():
        inner, many = _section_in(found, schema)
        path = f"{prefix}{name}{'[]' if many else ''}"
        meaning = found.get("description") or (inner or {}).get("description", "")
        default = found.get("default")
        shown = "" if default in (None, [], {}) else _written(default)
        yield f"| `{path}` | {_cell(_type_of(found, schema))} | {_cell(shown)} | {_cell(meaning)} |\n"
        if inner is not None and name != "stages":
            yield from _section(inner, schema, f"{path}.")


def _section_in(found: dict[str, Any], schema: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """The section that a key holds, and whether it holds a list of them."""
    for each in (found, *found.get("anyOf", ())):
        if each.get("type") == "array":
            inner, _ = _section_in(each.get("items", {}), schema)
            if inner is not None:
                return inner, True
        name = each.get("$ref", "").rpartition("/")[2]
        if name and "properties" in schema["$defs"][name]:
            return schema["$defs"][name], False
    return None, False


def _type_of(found: dict[str, Any], schema: dict[str, Any]) -> str:
    if "enum" in found or "const" in found:
        return " or ".join(f"`{choice}`" for choice in found.get("enum", [found.get("const")]))
    if "anyOf" in found:
        kinds = [_type_of(each, schema) for each in found["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in found:
        return "section"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "yes or no",
        "object": "section",
    }
    kind = found.get("type")
    if kind == "array":
        return f"list of {_type_of(found.get('items', {}), schema)}" if found.get("items") else "list"
    if isinstance(kind, list):
        return " or ".join(words.get(each, each) for each in kind if each != "null")
    examples = found.get("examples")
    return f"{words.get(kind or '', 'any')}" + (f", e.g. `{examples[0]}`" if examples else "")


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())


if __name__ == "__main__":
    FILE.write_text(reference())
    print(FILE)
