"""Every setting of a project with its value, where that comes from, its unit and meaning, without secrets; and
everything that is wrong with them.

`settings.load` stops at the first problem, because nothing can go on with it; a person wants to see all of them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from trainflow.errors import InputError, SettingsError
from trainflow.executors.plugins import told_problems
from trainflow.identifiers import did_you_mean
from trainflow.observability.redaction import MASK, redact, redact_text
from trainflow.settings.environment import PREFIX
from trainflow.settings.executors import executor_entries, table_type
from trainflow.settings.load import (
    EXECUTORS,
    check_names,
    document_in_force,
    executor_problems,
    load_settings,
    read_file,
    told,
    variable_of,
)
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

DEFAULT = "default"


class SettingLine(msgspec.Struct, frozen=True):
    """One setting. `source`: `default`, the settings file, or the environment variable that sets it."""

    #: section.key
    name: str
    section: str
    key: str
    value: Any
    default: Any
    #: "seconds", "GB", "count", "text", "list", "yes or no", "options", or the words it may be
    unit: str
    source: str
    meaning: str


def settings_in_force(project: Project, environ: Mapping[str, str] | None = None) -> list[SettingLine]:
    """Every setting, in the order of the model. Raises SettingsError as `load_settings` does."""
    environ = os.environ if environ is None else environ
    settings = load_settings(project, environ)
    written = read_file(project)
    lines: list[SettingLine] = []
    for section in msgspec.structs.fields(Settings):
        if section.name == EXECUTORS:
            lines += _executor_lines(project, settings, written, environ)
            continue
        values, meanings = getattr(settings, section.name), _meanings(section.type)
        for field in msgspec.structs.fields(section.type):
            variable = variable_of(environ, section.name, field.name)
            in_file = field.name in written.get(section.name, {})
            lines.append(
                SettingLine(
                    name=f"{section.name}.{field.name}",
                    section=section.name,
                    key=field.name,
                    value=getattr(values, field.name),
                    default=_default(field),
                    unit=_unit(field),
                    source=variable or (str(project.settings_file) if in_file else DEFAULT),
                    meaning=meanings.get(field.name, ""),
                )
            )
    return lines


def _executor_lines(
    project: Project, settings: Settings, written: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[SettingLine]:
    """A line for each key of each executor: those that all of its kind have, and those of its own that are given."""
    for name, entry in executor_entries(settings).items():
        known = {field.name: field for field in msgspec.structs.fields(table_type(name))}
        meanings = _meanings(table_type(name))
        values = {key: getattr(entry, key) for key in known if hasattr(entry, key)} | entry.options
        for key, value in values.items():
            variable = variable_of(environ, EXECUTORS, f"{name}__{key}")
            in_file = key in written.get(EXECUTORS, {}).get(name, {})
            field = known.get(key)
            yield SettingLine(
                name=f"{EXECUTORS}.{name}.{key}",
                section=EXECUTORS,
                key=f"{name}.{key}",
                value=value,
                default=_default(field) if field else None,
                unit=_unit(field) if field else "option",
                source=variable or (str(project.settings_file) if in_file else DEFAULT),
                meaning=meanings.get(key, f"see the executor of type '{entry.type}'"),
            )


def problems(project: Project, environ: Mapping[str, str] | None = None) -> list[str]:
    """Problems with the settings file and the variables, one sentence each."""
    environ = os.environ if environ is None else environ
    given = _given(project, environ)
    try:
        written = read_file(project)
        found = [
            problem for section, values in written.items() for problem in _problems_of(project, section, values, given)
        ]
    except SettingsError as error:
        found = [str(error)]
    # a variable alone, over a project without a file: what is wrong with it is not hidden by the file
    bare = Project(project.root / "configs" / "nowhere", project.home)
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX):
            section, _, key = name[len(PREFIX) :].lower().partition("__")
            told_alone = _beside_others(section, key, given.get(section, {}).get(key), _try(bare, {name: value}), given)
            found += [f"environment variable {name}: {problem}" for problem in told_alone]
    return list(dict.fromkeys(found)) or _of_executors(project, environ)


def _given(project: Project, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What is given, by section and key, where that can be said."""
    try:
        document = document_in_force(project, environ)
    except SettingsError:
        return {}
    return {section: values for section, values in document.items() if isinstance(values, dict)}


def _beside_others(
    section: str, key: str, value: Any, alone: Iterable[str], given: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """What of that which is wrong with a value by itself is so beside all else that is given of its section: what goes
    with another one is not wrong without it."""
    for problem in alone:
        if section == EXECUTORS or section not in given:
            yield problem
            continue
        others = {name: other for name, other in given[section].items() if name != key}
        beside = _problem({section: {**others, key: value}})
        # another value that is wrong as well is told of by itself
        while beside is not None and _name(beside) != _name(problem) and others.pop(_name(beside), None) is not None:
            beside = _problem({section: {**others, key: value}})
        if beside is not None:
            yield beside


def _problem(document: dict[str, Any]) -> str | None:
    try:
        msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        return told(error)
    return None


def _name(problem: str) -> str:
    """The key that it is about."""
    return problem.partition(": ")[0].rpartition(".")[2]


def _of_executors(project: Project, environ: Mapping[str, str]) -> list[str]:
    """What the kinds of executors say of their tables, file and variables together. Asked when all else is right."""
    try:
        settings = load_settings(project, environ)
    except SettingsError as error:
        return [str(error)]
    return list(told_problems(project, settings, environ))


def _problems_of(project: Project, section: str, values: Any, given: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Each key of a section by itself, and beside the others."""
    if section == EXECUTORS and isinstance(values, Mapping):
        yield from (f"{project.settings_file}: {problem}" for _, problem in executor_problems(values, None))
        return
    where = str(project.settings_file)
    pairs = list(values.items()) if isinstance(values, Mapping) else [(None, values)]
    for key, value in pairs or [(None, {})]:
        document: dict[str, Any] = {section: {key: value}} if key is not None else {section: value}
        try:
            check_names(document, where=where)
        except SettingsError as error:
            yield str(error)
            continue
        alone = [problem] if (problem := _problem(document)) is not None else []
        yield from (
            f"{where}: {problem}"
            for problem in (alone if key is None else _beside_others(section, key, value, alone, given))
        )


def _try(project: Project, environ: Mapping[str, str]) -> Iterator[str]:
    try:
        load_settings(project, environ)
    except SettingsError as error:
        # the variable is named by the caller
        yield str(error).removeprefix(f"environment variable {next(iter(environ))}: ")


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _unit(field: msgspec.structs.FieldInfo) -> str:
    inner = msgspec.inspect.type_info(field.type)
    if isinstance(inner, msgspec.inspect.UnionType):
        inner = next(each for each in inner.types if not isinstance(each, msgspec.inspect.NoneType))
    match inner:
        case msgspec.inspect.LiteralType():
            return " | ".join(str(value) for value in inner.values)
        case msgspec.inspect.BoolType():
            return "yes or no"
        case msgspec.inspect.DictType():
            return "options"
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            return "list"
        case msgspec.inspect.FloatType() | msgspec.inspect.IntType():
            units = {"seconds": "seconds", "gb": "GB"}
            return units.get(field.name.rpartition("_")[2], "count")
    return "text"


def _meanings(section: type) -> dict[str, str]:
    """The `#:` comments of a section; one above several settings is about all of them."""
    meanings: dict[str, str] = {}
    comment: list[str] = []
    in_comment = False
    for line in inspect.getsource(section).splitlines():
        text = line.strip()
        if text.startswith("#:"):
            comment = [*(comment if in_comment else []), text.removeprefix("#:").strip()]
            in_comment = True
            continue
        in_comment = False
        name, colon, _ = text.partition(":")
        if colon and name.isidentifier():
            meanings[name] = " ".join(comment)
    return meanings


class SettingsCheck(msgspec.Struct, frozen=True):
    """What is wrong with the settings file and the TRAINFLOW__… variables, a sentence each."""

    ok: bool
    file: str
    problems: list[str]


def list_settings(project: Project, section: str | None = None, *, changed: bool = False) -> list[SettingLine]:
    """The settings of all sections or of one; `changed`: only what is not the default. Raises InputError,
    SettingsError."""
    found = _shown(project)
    if section is not None:
        _check_known(section, sorted({each.section for each in found}), "section")
    return [each for each in found if section in (None, each.section) and not (changed and each.source == DEFAULT)]


def find_setting(project: Project, name: str) -> SettingLine:
    """The setting `section.key`. Raises InputError, SettingsError."""
    found = {each.name: each for each in _shown(project)}
    _check_known(name, list(found), "setting")
    return found[name]


def check_settings(project: Project) -> SettingsCheck:
    """Look at everything, whatever is wrong first."""
    found = [redact_text(problem) for problem in problems(project)]
    return SettingsCheck(not found, str(project.settings_file), found)


def _shown(project: Project) -> list[SettingLine]:
    """The settings in force, without secrets."""
    lines = settings_in_force(project)
    return [msgspec.structs.replace(line, value=_without_secrets(line.key, line.value)) for line in lines]


def _without_secrets(key: str, value: Any) -> Any:
    """Options of a store may be anything: only their names are shown."""
    return dict.fromkeys(value, MASK) if isinstance(value, dict) else redact(value, key)


def _check_known(name: str, known: list[str], what: str) -> None:
    if name not in known:
        raise InputError(f"no {what} is called '{name}'{did_you_mean(name, known)}")
