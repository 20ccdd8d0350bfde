"""Settings: defaults, then the project's file, then variables; and what is wrong is said where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from trainflow.errors import SettingsError
from trainflow.settings.environment import worker_environment
from trainflow.settings.executors import ExecutorEntry, LocalExecutorSettings, executor_entries, local_executor
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
        "[engine]\npoll_seconds = 2\n[executors]\nlocal = {slots = 3, isolation = 'spawn'}\n",
        TRAINFLOW__EXECUTORS__LOCAL__SLOTS="7",
        UNRELATED="1",
    )
    assert settings.engine.poll_seconds == 2.0
    assert local_executor(settings) == LocalExecutorSettings(slots=7, isolation="spawn")


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
        (
            "[executors.local]\nwhatever = 1\n",
            r"unknown setting executors.local.whatever; known: slots, nodes",
        ),
        ("engine = 1\n", r"\[engine\] must be a table"),
        ("[engine]\npoll_seconds = 0\n", r"engine.poll_seconds"),
        ("[engine]\npoll_seconds = 'fast'\n", r"engine.poll_seconds"),
        ("[executors]\nlocal = {slots = 0}\n", r"executors.local.slots"),
        ("[executors.local]\nisolation = 'thread'\n", r"executors.local.isolation"),
        ("[executors]\ngpu = 3\n", r"executors: expected a table, not a whole number"),
        ("[executors]\n'g p' = {}\n", r"'g p' cannot name a executor"),
        ("[executors]\ngpu = {slots = 0}\n", r"executors.gpu.slots: expected a whole number >= 1"),
        ("[executors]\nbig = {type = 'local'}\n", r"executors.big.type: there is one executor of this host"),
        ("[executor]\ndefault = 'gpo'\n[executors]\ngpu = {}\n", r"executor.default: .* 'gpo'; did you mean 'gpu'\?"),
        ("[database]\nurl = 'postgrs://a:topsecret@h/d'\n", r"database.url: .* 'postgrs'; did you mean 'postgresql'\?"),
        ("[database]\nurl = 'postgres://h/d'\n", r"database.url: .*; did you mean 'postgresql'\?"),
        ("[database]\nurl = 'sqlite:/x.db'\n", r"database.url: is no URL; it begins with one of sqlite://, "),
        ("[notifications]\nwebhook = 'htp://h/topsecret'\n", r"notifications.webhook: does not begin with http://"),
        ("[checkpoints]\nstore = 's3:/b/x'\n", r"checkpoints.store: .*; did you mean 's3://b/x'\?"),
        ("[notifications]\napprise = ['mailto:topsecret@h']\n", r"notifications.apprise: entry 1 is no URL"),
        ("[checkpoints]\nstore = 's3://K:topsecret@b/x'\n", r"checkpoints.store: the store s3://K:\*\*\*@b/x has cred"),
        ("[engine\n", r"not valid TOML.*line 1"),
    ],
)
def test_settings_mistake_in_file_is_named(write_project: WriteProject, toml: str, says: str) -> None:
    project = write_project({"configs/trainflow.toml": toml})
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings(project, {})
    assert str(project.settings_file) in str(caught.value)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["TRAINFLOW__ENGINE__POL_SECONDS", "TRAINFLOW__ENGIN__POLL_SECONDS", "TRAINFLOW__ENGINE", "TRAINFLOW__"]
)
def test_variable_that_means_nothing_is_named(write_project: WriteProject, name: str) -> None:
    with pytest.raises(SettingsError, match=f"environment variable {name}: unknown"):
        load_settings(write_project({}), {name: "1"})


@pytest.mark.parametrize(
    ("toml", "names", "default"),
    [
        ("", ["local"], "local"),
        ("[executors]\ngpu = {type = 'celery'}\n", ["local", "gpu"], "local"),
        ("[executor]\ndefault = 'gpu'\n[executors]\ngpu = {type = 'celery'}\n", ["gpu"], "gpu"),
        ("[executor]\ndefault = 'gpu'\n[executors]\ngpu = {}\nlocal = {}\n", ["gpu", "local"], "gpu"),
    ],
)
def test_executors_that_are_configured(write_project: WriteProject, toml: str, names: list[str], default: str) -> None:
    settings = load(write_project, toml)
    assert (list(executor_entries(settings)), settings.executor.default) == (names, default)


def test_executor_has_type_slots_and_options_of_its_own(write_project: WriteProject) -> None:
    toml = "[executors]\ngpu = {type = 'celery', slots = 3, broker = 'b'}\n"
    (_, gpu) = executor_entries(load(write_project, toml, TRAINFLOW__EXECUTORS__GPU__QUEUE="q")).values()
    assert gpu == ExecutorEntry("gpu", "celery", 3, {"broker": "b", "queue": "q"})


def test_storage_options_may_hold_tables(write_project: WriteProject) -> None:
    settings = load(write_project, "[checkpoints]\nstorage_options = { client_kwargs = { region_name = 'x' } }\n")
    assert settings.checkpoints.storage_options == {"client_kwargs": {"region_name": "x"}}


def test_values_are_never_shown(write_project: WriteProject) -> None:
    """A storage option may be a secret."""
    with pytest.raises(SettingsError) as caught:
        load(write_project, "[checkpoints]\nstorage_options = { secret = ['hunter2'] }\n")
    assert "hunter2" not in str(caught.value)


def test_settings_defaults_satisfy_own_rules() -> None:
    assert msgspec.convert(msgspec.to_builtins(Settings()), Settings) == Settings()


@pytest.mark.parametrize(
    ("code", "fine"),
    [
        ("shared", True),
        ("image", True),
        ("git+https://example.com/repo.git@1f3a", True),
        ("s3://bucket/code.zip", True),
        ("git+https://me@example.com/repo.git", False),
        ("shard", False),
    ],
)
def test_code_of_workers(write_project: WriteProject, code: str, fine: bool) -> None:
    if fine:
        assert load(write_project, f"[workers]\ncode = '{code}'\n").workers.code == code
    else:
        with pytest.raises(SettingsError, match=r"workers\.code: "):
            load(write_project, f"[workers]\ncode = '{code}'\n")


def test_worker_environment_lacks_secrets_of_control_plane() -> None:
    secret = {"TRAINFLOW__DATABASE__URL", "TRAINFLOW__API__TOKEN", "TRAINFLOW__NOTIFICATIONS__WEBHOOK"}
    secret |= {"TRAINFLOW__EXECUTORS__FLEET__BROKER", "TRAINFLOW__EXECUTORS__CLUSTER__TOKEN"}
    kept = {"TRAINFLOW__ENGINE__STOP_GRACE_SECONDS", "PATH", "TRAINFLOW__API__TLS_CA"}
    assert set(worker_environment(dict.fromkeys(secret | kept, "x"))) == kept
