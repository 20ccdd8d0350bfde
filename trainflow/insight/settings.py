"""The settings of a project as they are in force, without secrets, and everything that is wrong with them."""

from __future__ import annotations

from typing import Any

import msgspec

from trainflow.errors import InputError
from trainflow.near_names import did_you_mean
from trainflow.observability.redaction import MASK, redact, redact_text
from trainflow.settings.project import Project
from trainflow.settings.report import DEFAULT, problems, settings_in_force


class SettingSummary(msgspec.Struct, frozen=True):
    """One setting, as `trainflow.settings.report.SettingLine` explains it; `value` without secrets."""

    name: str
    section: str
    key: str
    value: Any
    default: Any
    unit: str
    source: str
    meaning: str


class SettingsCheck(msgspec.Struct, frozen=True):
    """What is wrong with the settings file and the TRAINFLOW__… variables, a sentence each."""

    ok: bool
    file: str
    problems: list[str]


def list_settings(project: Project, section: str | None = None, *, changed: bool = False) -> list[SettingSummary]:
    """The settings of all sections or of one; `changed`: only what is not the default. Raises InputError,
    SettingsError."""
    found = _summaries(project)
    if section is not None:
        _check_known(section, sorted({each.section for each in found}), "section")
    return [each for each in found if section in (None, each.section) and not (changed and each.source == DEFAULT)]


def find_setting(project: Project, name: str) -> SettingSummary:
    """The setting `section.key`. Raises InputError, SettingsError."""
    found = {each.name: each for each in _summaries(project)}
    _check_known(name, list(found), "setting")
    return found[name]


def check_settings(project: Project) -> SettingsCheck:
    """Look at everything, whatever is wrong first."""
    found = [redact_text(problem) for problem in problems(project)]
    return SettingsCheck(not found, str(project.settings_file), found)


def _summaries(project: Project) -> list[SettingSummary]:
    return [
        SettingSummary(
            each.name,
            each.section,
            each.key,
            _without_secrets(each.key, each.value),
            each.default,
            each.unit,
            each.source,
            each.meaning,
        )
        for each in settings_in_force(project)
    ]


def _without_secrets(key: str, value: Any) -> Any:
    """Options of a store may be anything: only their names are shown."""
    return dict.fromkeys(value, MASK) if isinstance(value, dict) else redact(value, key)


def _check_known(name: str, known: list[str], what: str) -> None:
    if name not in known:
        raise InputError(f"no {what} is called '{name}'{did_you_mean(name, known)}")
