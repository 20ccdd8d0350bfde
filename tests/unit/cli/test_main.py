"""What every command has in common: what it imports, what it says of a damaged database and of what ran out."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import closing

import pytest
import typer

from tests.support.control_plane import empty_task
from trainflow.cli import main
from trainflow.metadata.database import Database
from trainflow.observability import file_access


def damage(database) -> None:
    """Overwrite what lies behind the first pages, as a disk does that fails."""
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xde\xad" * ((size - 4096) // 2))


@pytest.fixture
def damaged(plane, folder):
    plane.add_dag("d", empty_task("t"))
    for number in range(50):
        plane.add_run("d", f"r{number}")
    plane.close()
    url = f"sqlite:///{plane.project.home.database}"
    with closing(Database(url)) as database, database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    damage(plane.project.home.database)
    return plane.project.home.database


@pytest.mark.parametrize(
    "arguments", [("status",), ("runs", "list"), ("dags", "list"), ("why", "d"), ("pools", "list")]
)
def test_damaged_database_is_one_sentence(damaged, cli, arguments) -> None:
    said = cli(*arguments)
    assert said.code == 1
    assert said.err.startswith(f"error: the metadata database {damaged} is damaged (")
    assert "Nothing about training is lost" in said.err
    assert f"Move {damaged} away" in said.err
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "memory ran out: train on smaller splits"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"), "/data/x: the disk is full: make room on it"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/data/x"), "/data/x: this process has as many files open"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "/data/x"), "/data/x: Permission denied; have access to it"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/x"), "/data/x: Read-only file system; mount its disk"),
    ],
)
def test_main_out_of_resources_is_one_sentence(folder, capsys, monkeypatch, error, says) -> None:
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(main, "application", lambda _: fails)
    assert main.run(["status"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {says}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "replaced", "says"),
    [
        (
            ModuleNotFoundError("No module named 'trainflow.x'", name="trainflow.x"),
            False,
            "No module named 'trainflow.x'",
        ),
        (ImportError("cannot import name 'y'", name="trainflow.x"), False, "ImportError: cannot import name 'y'"),
        (AttributeError("password=hunter2"), True, "(AttributeError)"),
    ],
)
def test_main_whose_package_is_installed_anew_is_one_sentence(
    folder, capsys, monkeypatch, error, replaced, says
) -> None:
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(main, "application", lambda _: fails)
    monkeypatch.setattr("trainflow.bootstrap.is_replaced", lambda: replaced)
    assert main.run(["status"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: trainflow is being installed anew, or was while this command ran (")
    assert says in err
    assert err.endswith(": run it again\n")
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("word", "replaced", "again"),
    [("start", True, 1), ("standalone", True, 1), ("status", True, 0), ("start", False, 0)],
)
def test_main_of_what_runs_on_is_begun_again_where_its_package_was_replaced(
    folder, capsys, monkeypatch, word, replaced, again
) -> None:
    """A module that an engine needs for the first time is not there while another build is installed."""

    def fails(*_, **__):
        raise ModuleNotFoundError("No module named 'trainflow.x'", name="trainflow.x")

    begun = []
    monkeypatch.setattr(main, "application", lambda _: fails)
    monkeypatch.setattr(main, "is_replaced", lambda: replaced)
    monkeypatch.setattr(main, "run_again", lambda *, without: begun.append(without))
    # it comes back only where what is installed cannot be imported
    assert main.run([word, "p"]) == 1
    assert len(begun) == again
    assert ("it goes on as what is there now" in capsys.readouterr().err) == bool(again)


def test_main_broken_module_of_others_is_no_matter_of_builds(folder, monkeypatch) -> None:
    def fails(*_, **__):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(main, "application", lambda _: fails)
    with pytest.raises(ModuleNotFoundError):
        main.run(["status"])


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_main_has_no_color_where_none_is_wanted(monkeypatch, variable, value) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert main._color() is None
    monkeypatch.setenv(variable, value)
    assert main._color() is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rewind", "p"], "No such command 'rewind'. It is 'trainflow checkpoints rewind'.\n"),
        (["run", "pipelines/p.yaml"], "No such command 'run'. It is 'trainflow start'.\n"),
        (["worker"], "No such command 'worker'. It is 'trainflow celery worker'.\n"),
        (["clear"], "No such command 'clear'. It is 'trainflow runs clear' or 'trainflow tasks clear'.\n"),
        (["checkpoint"], "No such command 'checkpoint'. Did you mean 'checkpoints'?\n"),
        (["samples", "rewind"], "No such command 'rewind'. It is 'trainflow checkpoints rewind'.\n"),
    ],
)
def test_main_verb_without_its_noun_is_told_the_command(capsys, words, said) -> None:
    assert main.run(words) == 2
    assert capsys.readouterr().err.endswith(said)


def test_main_refused_in_a_folder_of_another_says_whose_it_is(tmp_path, capsys, monkeypatch) -> None:
    def fails(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "not" / "seen"))

    monkeypatch.setattr(main, "application", lambda _: fails)
    monkeypatch.setattr(file_access.os, "access", lambda path, *_, **__: path != tmp_path)
    assert main.run(["status"]) == 1
    err = capsys.readouterr().err
    assert f"{tmp_path} belongs to " in err
    assert f"(uid {tmp_path.stat().st_uid}), group " in err
    assert ": run this as that user, or set TRAINFLOW_HOME to a folder of your own" in err


@pytest.mark.parametrize("depth", [300, 100_000])
def test_conf_that_is_nested_too_deeply_is_wrong_input(plane, cli, depth) -> None:
    plane.add_dag("d", empty_task("t"))
    said = cli("runs", "trigger", "d", "--conf", '{"a":' + "[" * depth + "]" * depth + "}")
    assert said.code == 2
    assert "nested" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_conf_that_is_no_json_value_is_wrong_input(plane, cli, value) -> None:
    plane.add_dag("d", empty_task("t"))
    said = cli("runs", "trigger", "d", "--conf", json.dumps({"a": 1}).replace("1", value))
    assert said.code == 2
    assert "conf" in said.err


def test_help_pays_for_nothing_it_does_not_use() -> None:
    heavy = "sqlalchemy pyarrow mlflow jinja2 yaml fsspec pydantic asyncio rich random msgspec".split()  # noqa: SIM905
    show = f"print([name for name in {heavy} if name in sys.modules])"
    script = f"import sys, trainflow.cli.main; trainflow.cli.main.application(); {show}"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("columns", [50, 80, 160])
def test_help_without_commands_is_that_of_all_of_them(columns: int) -> None:
    every, alone = (typer.main.get_command(main.application(word)) for word in (None, "--help"))
    with every.make_context("trainflow", [], terminal_width=columns, resilient_parsing=True) as context:
        expected = every.get_help(context)
    with alone.make_context("trainflow", [], terminal_width=columns, resilient_parsing=True) as context:
        assert alone.get_help(context) == expected


def test_help_and_version_import_no_command() -> None:
    look = "import sys; from trainflow.cli import main; main.run(sys.argv[1:]); "
    look += "print(*(each for each in sys.modules if each.startswith('trainflow.cli.commands')), sep='')"
    for words in (["--help"], ["-h"], ["--version"], []):
        done = subprocess.run([sys.executable, "-c", look, *words], capture_output=True, text=True, check=True)
        assert "trainflow.cli.commands" not in done.stdout
