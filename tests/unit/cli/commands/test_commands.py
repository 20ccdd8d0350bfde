"""`schema`, `init`, `stop`, `mlflow`: what they say before anything runs."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from trainflow.actions import engine_client
from trainflow.cli import main
from trainflow.settings.load import load_settings
from trainflow.settings.project import MARKER, project_at


class TestSchema:
    def test_schema_without_path_is_printed(self, cli):
        schema = cli("schema").json
        assert schema["title"] == "trainflow pipeline"
        assert {"required": ["pipeline", "samples", "train"]} in schema["anyOf"]

    def test_schema_with_path_is_written(self, cli, tmp_path):
        file = tmp_path / "schema.json"
        assert cli("schema", "--output", str(file)).code == 0
        assert json.loads(file.read_text()) == cli("schema").json

    def test_schema_with_unwritable_path_is_refused(self, cli, tmp_path):
        said = cli("schema", "-o", str(tmp_path / "nowhere" / "schema.json"))
        assert (said.code, "cannot write" in said.err) == (2, True)


class TestInit:
    def test_lays_out_project(self, cli, tmp_path):
        said = cli("init", str(tmp_path / "new model"))
        assert said.code == 0
        assert "trainflow start pipelines/example.yaml" in said.out
        load_settings(project_at(tmp_path / "new model"))
        assert (tmp_path / "new model" / "pipelines" / "example.yaml").is_file()

    def test_overwrites_nothing(self, cli, tmp_path):
        (tmp_path / MARKER).parent.mkdir()
        (tmp_path / MARKER).write_text("mine")
        said = cli("init", str(tmp_path), "--name", "x")
        assert (said.code, "nothing is overwritten" in said.err) == (2, True)
        assert (tmp_path / MARKER).read_text() == "mine"


class TestStop:
    @pytest.fixture
    def engine(self, folder, monkeypatch) -> list[tuple[int, int]]:
        """An engine that ends when it is told for the first time."""
        told: list[tuple[int, int]] = []
        monkeypatch.setattr("trainflow.engine.lock.running_engine", lambda home: None if told else 4711)
        monkeypatch.setattr(os, "kill", lambda pid, number: told.append((pid, number)))
        return told

    def test_none_is_alive(self, folder, cli):
        said = cli("stop")
        assert (said.code, said.out) == (0, "no engine is alive\n")

    @pytest.mark.parametrize(
        ("options", "signals"), [((), [signal.SIGTERM]), (("--now",), [signal.SIGTERM, signal.SIGINT])]
    )
    def test_tells_it_and_waits(self, engine, cli, options, signals):
        said = cli("stop", *options)
        assert (said.code, said.out) == (0, "the engine (pid 4711) has stopped\n")
        assert engine == [(4711, number) for number in signals]

    def test_gives_up_waiting(self, folder, cli, monkeypatch):
        monkeypatch.setattr("trainflow.engine.lock.running_engine", lambda home: 4711)
        monkeypatch.setattr(os, "kill", lambda pid, number: None)
        monkeypatch.setattr(engine_client, "_LOOK_SECONDS", 0)
        said = cli("stop", "--wait", "0")
        assert (said.code, "still runs after 0 s" in said.err) == (1, True)

    def test_stop_of_another_users_engine_is_refused(self, folder, cli, monkeypatch):
        def refuse(pid: int, number: int) -> None:
            raise PermissionError

        monkeypatch.setattr("trainflow.engine.lock.running_engine", lambda home: 4711)
        monkeypatch.setattr(os, "kill", refuse)
        said = cli("stop")
        assert (said.code, "belongs to another user" in said.err) == (1, True)


class TestMlflow:
    def test_port_that_is_taken(self, folder, cli):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            said = cli("mlflow", "--port", str(taken.getsockname()[1]))
        assert (said.code, "choose another --port" in said.err) == (2, True)

    def test_mlflow_with_server_running_names_it(self, folder, cli, monkeypatch):
        monkeypatch.setenv("TRAINFLOW__TRACKING__URI", "https://me:hush@mlflow.example")
        said = cli("mlflow")
        assert said.code == 2
        assert "mlflow.example" in said.err
        assert "hush" not in said.err


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_help_summary_of_each_command_fits_one_line() -> None:
    root = typer.main.get_command(main.application())
    lines = {name: command.get_short_help_str(58) for name, command in _commands(root)}
    assert len(lines) > 40
    assert {name: line for name, line in lines.items() if line.endswith("...") or not line} == {}


def test_help_names_every_value() -> None:
    """`<str>` says nothing about what is to be written there."""
    root = typer.main.get_command(main.application())
    nameless = [
        (name, option.opts[0])
        for name, command in _commands(root)
        for option in command.params
        if not getattr(option, "is_flag", False) and option.metavar is None and not option.hidden
    ]
    assert nameless == []
