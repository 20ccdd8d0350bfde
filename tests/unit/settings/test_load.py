"""Settings: defaults, then the project's file, then variables; and what is wrong is said where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from trainflow.errors import SettingsError
from trainflow.settings.load import load_settings
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

WriteProject = Callable[[dict[str, str]], Project]


def load(write_project: WriteProject, toml: str = "", **environ: str) -> Settings:
    return load_settings(write_project({"configs/trainflow.toml": toml}), environ)


def test_settings_have_defaults(write_project: WriteProject) -> None:
    assert load(write_project) == Settings()


def test_settings_without_file_are_defaults(write_project: WriteProject) -> None:
    project = write_project({})
    project.settings_file.unlink()
    assert load_settings(project, {}) == Settings()


def test_file_wins_over_defaults_and_variables_over_file(write_project: WriteProject) -> None:
    settings = load(
        write_project,
        "[engine]\npoll_seconds = 2\n[executor]\nslots = 3\nisolation = 'spawn'\n",
        TRAINFLOW__EXECUTOR__SLOTS="7",
        UNRELATED="1",
    )
    assert settings.engine.poll_seconds == 2.0
    assert settings.executor == msgspec.structs.replace(Settings().executor, slots=7, isolation="spawn")


@pytest.mark.parametrize(
    ("name", "raw", "section", "key", "value"),
    [
        ("TRAINFLOW__ENGINE__POLL_SECONDS", "0.5", "engine", "poll_seconds", 0.5),
        ("TRAINFLOW__TRACKING__ENABLED", "false", "tracking", "enabled", False),
        ("TRAINFLOW__DATABASE__URL", "sqlite:////x.db", "database", "url", "sqlite:////x.db"),
        ("TRAINFLOW__CHECKPOINTS__STORAGE_OPTIONS", '{"key": "a"}', "checkpoints", "storage_options", {"key": "a"}),
        # lower case, as some shells and containers have it
        ("TRAINFLOW__engine__lost_attempts", "3", "engine", "lost_attempts", 3),
    ],
)
def test_settings_variables_override_file(
    write_project: WriteProject, name: str, raw: str, section: str, key: str, value: Any
) -> None:
    settings = load_settings(write_project({}), {name: raw})
    assert getattr(getattr(settings, section), key) == value


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[engin]\n", r"unknown section \[engin\]; did you mean 'engine'\?"),
        ("[engine]\npol_seconds = 1\n", r"unknown setting engine.pol_seconds; did you mean 'poll_seconds'\?"),
        ("[executor]\nwhatever = 1\n", r"unknown setting executor.whatever; known: slots, isolation"),
        ("engine = 1\n", r"\[engine\] must be a table"),
        ("[engine]\npoll_seconds = 0\n", r"engine.poll_seconds"),
        ("[engine]\npoll_seconds = 'fast'\n", r"engine.poll_seconds"),
        ("[executor]\nslots = 0\n", r"executor.slots"),
        ("[executor]\nisolation = 'thread'\n", r"executor.isolation"),
        ("[engine\n", r"not valid TOML.*line 1"),
    ],
)
def test_settings_mistake_in_file_is_named(write_project: WriteProject, toml: str, says: str) -> None:
    project = write_project({"configs/trainflow.toml": toml})
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings(project, {})
    assert str(project.settings_file) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["TRAINFLOW__ENGINE__POL_SECONDS", "TRAINFLOW__ENGIN__POLL_SECONDS", "TRAINFLOW__ENGINE", "TRAINFLOW__"]
)
def test_variable_that_means_nothing_is_named(write_project: WriteProject, name: str) -> None:
    with pytest.raises(SettingsError, match=f"environment variable {name}: unknown"):
        load_settings(write_project({}), {name: "1"})


def test_values_are_never_shown(write_project: WriteProject) -> None:
    """A storage option may be a secret."""
    with pytest.raises(SettingsError) as caught:
        load(write_project, "[checkpoints]\nstorage_options = { secret = ['hunter2'] }\n")
    assert "hunter2" not in str(caught.value)


def test_settings_defaults_satisfy_own_rules() -> None:
    assert msgspec.convert(msgspec.to_builtins(Settings()), Settings) == Settings()
