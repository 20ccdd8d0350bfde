"""Read settings: defaults, then the project's file, then `TRAINFLOW__SECTION__KEY` variables."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from trainflow.errors import SettingsError
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

PREFIX = "TRAINFLOW__"


def load_settings(project: Project, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force for a project. Raises SettingsError naming the file or variable that is wrong."""
    environ = os.environ if environ is None else environ
    document = _read_file(project)
    check_names(document, where=str(project.settings_file))
    for name, value in environ.items():
        if name.startswith(PREFIX):
            _overlay(document, name, value)
    try:
        return msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{project.settings_file} (or a {PREFIX}… variable): {error}") from None


def _read_file(project: Project) -> dict[str, Any]:
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
    document.setdefault(section, {})[key] = value


def check_names(document: Mapping[str, Any], *, where: str) -> None:
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for section, values in document.items():
        if section not in sections:
            raise SettingsError(f"{where}: unknown section [{section}]{_did_you_mean(section, sections)}")
        if not isinstance(values, Mapping):
            raise SettingsError(f"{where}: [{section}] must be a table")
        keys = [field.name for field in msgspec.structs.fields(sections[section])]
        for key in values:
            if key not in keys:
                raise SettingsError(f"{where}: unknown setting {section}.{key}{_did_you_mean(key, keys)}")


def _did_you_mean(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"
