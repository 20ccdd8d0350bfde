"""Read settings: defaults, then the project's file, then `TRAINFLOW__SECTION__KEY` variables."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from trainflow.errors import InputError, SettingsError
from trainflow.identifiers import did_you_mean
from trainflow.settings import openlineage, telemetry
from trainflow.settings.environment import PREFIX
from trainflow.settings.executors import default_problem, executor_entries, table_problems, table_type
from trainflow.settings.model import Settings
from trainflow.settings.project import Project, project_at

#: the section whose keys are names of people's choice
EXECUTORS = "executors"


#: how msgspec says that a value does not fit
_WRONG = re.compile(r"(?P<problem>.*) - at `\$\.(?P<name>[\w.]+)[^`]*`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<type>[^`]+)`(?P<limit> [<>]=? [\d.]+)?(?:, got `(?P<got>[^`]+)`)?")
_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list"}
_NAMES |= {"object": "a table", "str | null": "text", "float | null": "a number", "null": "nothing"}


def load_settings(project: Project, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force for a project. Raises SettingsError naming the file or variable that is wrong."""
    environ = os.environ if environ is None else environ
    document = document_in_force(project, environ)
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{_origin(error, project, environ)}: {told(error)}") from None
    for place, problem in executor_problems(settings.executors, settings.executor.default):
        variable = variable_of(environ, *place)
        raise SettingsError(f"{f'environment variable {variable}' if variable else project.settings_file}: {problem}")
    return settings


def document_in_force(project: Project, environ: Mapping[str, str]) -> dict[str, Any]:
    """Sections and keys that are given, in the file and over it in variables; values are unchecked. Raises
    SettingsError for a name that there is not."""
    document = read_file(project)
    check_names(document, where=str(project.settings_file))
    _add_standard_variables(document, environ)
    for name, value in environ.items():
        if name.startswith(PREFIX):
            _overlay(document, name, value)
    return document


def _add_standard_variables(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """What the variables of OpenLineage's clients and of OpenTelemetry's SDKs say; the project's file comes first, but
    for switching them off."""
    for section, found in (
        ("openlineage", openlineage.from_environment(environ)),
        ("telemetry", telemetry.from_environment(environ)),
    ):
        if found:
            written = document.get(section, {})
            document[section] = {**found, **written, **({"disabled": True} if found.get("disabled") else {})}


def executor_problems(executors: Mapping[str, Any], default: str | None) -> Iterator[tuple[tuple[str, str], str]]:
    """What is wrong with `[executors]` and with the default: (section and key, sentence)."""
    for name, table in executors.items():
        for problem in table_problems(name, table):
            if isinstance(problem, str):
                yield (EXECUTORS, name), problem
            else:
                key = _key_of(problem)
                sentence = told(problem, within=table_type(name))
                yield (EXECUTORS, f"{name}__{key}"), f"{EXECUTORS}.{name}.{sentence}"
    if default is not None and (wrong := default_problem(default, list(executors))) is not None:
        yield ("executor", "default"), wrong


def check_executors(root: Path, names: Iterable[str | None]) -> None:
    """Raise InputError for a name that no executor of the project at `root` has. None: the default, which is there."""
    wanted = sorted({name for name in names if name is not None})
    if not wanted:
        return
    known = list(executor_entries(load_settings(project_at(root))))
    for name in wanted:
        if name not in known:
            raise InputError(f"no executor is called '{name}'{did_you_mean(name, known, 'configured')}")


def _key_of(error: msgspec.ValidationError) -> str:
    found = _WRONG.fullmatch(str(error))
    return found["name"] if found else ""


def told(error: msgspec.ValidationError, *, within: type = Settings) -> str:
    """What is wrong with a value, in the words of the file."""
    found = _WRONG.fullmatch(str(error))
    if found is None:
        return str(error)
    problem, name = _place(found)
    expected = _EXPECTED.match(problem)
    if expected is not None:
        wanted = _NAMES.get(expected["type"], expected["type"])
        got = f", not {_NAMES.get(expected['got'], expected['got'])}" if expected["got"] else ""
        return f"{name}: expected {wanted}{expected['limit'] or ''}{got}"
    if problem.startswith("Invalid enum value"):
        allowed = _choices(name, within)
        written = problem.removeprefix("Invalid enum value ").strip("'")
        return f"{name}: '{written}' is none of {', '.join(allowed)}{did_you_mean(written, allowed)}"
    return f"{name}: {problem}"


def _place(found: re.Match[str]) -> tuple[str, str]:
    """(problem, name of the setting). A check of a whole section names its setting first: `uri: …`."""
    problem, name = found["problem"], found["name"]
    if "." not in name:
        key, _, rest = problem.partition(": ")
        if key.isidentifier() and rest:
            return rest, f"{name}.{key}"
    return problem, name


def _choices(name: str, within: type) -> list[str]:
    kind: Any = within
    for key in name.split("."):
        kind = {field.name: field.type for field in msgspec.structs.fields(kind)}[key]
    return [str(choice) for choice in get_args(kind)]


def _origin(error: msgspec.ValidationError, project: Project, environ: Mapping[str, str]) -> str:
    """The variable that gives the value, or the file."""
    found = _WRONG.fullmatch(str(error))
    section, _, key = (_place(found)[1] if found else "").partition(".")
    variable = variable_of(environ, section, key)
    return f"environment variable {variable}" if variable else str(project.settings_file)


def variable_of(environ: Mapping[str, str], section: str, key: str) -> str | None:
    """Name of the environment variable that gives a setting, None when there is none."""
    return next((name for name in environ if name.lower() == f"{PREFIX}{section}__{key}".lower()), None)


def read_file(project: Project) -> dict[str, Any]:
    """Sections and keys as the settings file gives them, unchecked. Raises SettingsError for what is no TOML."""
    if not project.settings_file.is_file():
        return {}
    try:
        return tomllib.loads(project.settings_file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{project.settings_file}: not valid TOML: {error}") from None


def _overlay(document: dict[str, Any], name: str, raw: str) -> None:
    section, _, key = name[len(PREFIX) :].lower().partition("__")
    check_names({section: {key: None}}, where=f"environment variable {name}")
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        value = raw
    table = document.setdefault(section, {})
    if section == EXECUTORS and "__" in key:
        executor, _, key = key.partition("__")
        table = table.setdefault(executor, {})
    table[key] = value


def check_names(document: Mapping[str, Any], *, where: str) -> None:
    """Raise SettingsError for a section or a key that does not exist, with the nearest name."""
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for section, values in document.items():
        if section not in sections:
            raise SettingsError(f"{where}: unknown section [{section}]{did_you_mean(section, [*sections], 'known')}")
        if not isinstance(values, Mapping):
            raise SettingsError(f"{where}: [{section}] must be a table")
        if section == EXECUTORS:
            if "" in values:
                raise SettingsError(f"{where}: unknown setting {EXECUTORS}.: write {PREFIX}EXECUTORS__NAME__KEY")
            continue
        keys = [field.name for field in msgspec.structs.fields(sections[section])]
        for key in values:
            if key not in keys:
                raise SettingsError(f"{where}: unknown setting {section}.{key}{did_you_mean(key, keys, 'known')}")
