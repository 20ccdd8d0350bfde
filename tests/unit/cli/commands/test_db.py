from __future__ import annotations

import fcntl
import os
from datetime import timedelta

import pytest
import typer

from tests.support.control_plane import START
from trainflow.metadata.queries.cleanup_queries import KEPT_RUNS
from trainflow.metadata.schema import HEAD


def test_db_check_makes_nothing(folder, cli):
    facts = cli("db", "check", "--json").json
    database = folder / ".trainflow" / "trainflow.db"
    assert facts == {
        "ok": True,
        "place": str(database),
        "dialect": "sqlite",
        "exists": False,
        "revision": None,
        "head": HEAD,
        "problem": None,
    }
    assert cli("db", "current", "--json").json == {"revision": None, "head": HEAD, "is_current": False}
    assert cli("db", "path").out.strip() == str(database)
    assert not database.exists()


def test_migrate_makes_it(folder, cli):
    said = cli("db", "migrate")
    assert (said.code, f"revision {HEAD} (was empty)" in said.out) == (0, True)
    assert "was" not in cli("db", "migrate").out
    assert cli("db", "current").out == f"{HEAD}\n"
    assert cli("db", "check", "--json").json["revision"] == HEAD


def test_check_finds_damage(folder, cli):
    (folder / ".trainflow").mkdir()
    (folder / ".trainflow" / "trainflow.db").write_bytes(b"not a database at all" * 100)
    said = cli("db", "check", "--json")
    assert said.code == 1
    assert said.json["ok"] is False
    assert "cannot be read" in said.json["problem"]
    said = cli("runs", "list")
    assert said.code == 1
    assert "is damaged (file is not a database)" in said.err
    assert "Nothing about training is lost" in said.err


def test_database_that_refuses_is_told_in_sentence(cli, monkeypatch, plane):
    """A full disk refuses the commit with which a database is made."""
    from sqlalchemy.exc import OperationalError

    from trainflow.metadata.queries import run_queries

    def refuse(*_arguments):
        raise OperationalError("COMMIT", {}, Exception("database or disk is full"))

    monkeypatch.setattr(run_queries, "listing", refuse)
    said = cli("runs", "list")
    assert (said.code, said.err) == (1, "error: the metadata database cannot be used: database or disk is full\n")


def test_check_finds_another_revision(plane, cli):
    from sqlalchemy import text

    with plane.database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    said = cli("db", "check")
    assert (said.code, "9999" in said.out) == (1, True)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sqlite://me:hush@/nowhere.db", "Invalid SQLite URL"),
        ("oracel://me:hush@host/db", "oracel"),
        ("no url", "is no URL; it begins with one of sqlite://"),
    ],
)
def test_url_that_cannot_be_used(folder, cli, monkeypatch, url, problem):
    monkeypatch.setenv("TRAINFLOW__DATABASE__URL", url)
    for arguments in (("db", "path"), ("runs", "list")):
        said = cli(*arguments)
        assert said.code == 2
        assert problem in said.err
        assert "hush" not in said.err


class TestReset:
    def test_drops_everything(self, plane, cli):
        plane.add_run("d")
        assert cli("db", "reset", "--yes").code == 0
        assert cli("runs", "list", "--json").json == []
        assert cli("dags", "list", "--json").json == []
        assert [row["name"] for row in cli("pools", "list", "--json").json] == ["default_pool"]

    @pytest.mark.parametrize(("answer", "code", "left"), [(False, 1, 1), (True, 0, 0)])
    def test_reset_asks_first(self, plane, cli, monkeypatch, answer, code, left):
        import typer

        plane.add_run("d")
        monkeypatch.setattr(typer, "confirm", lambda question: answer)
        assert cli("db", "reset").code == code
        assert len(cli("runs", "list", "--json").json) == left

    def test_reset_with_live_engine_is_refused(self, plane, cli):
        plane.add_run("d")
        lock = plane.project.home.engine_lock
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.pwrite(descriptor, b"4711\n", 0)
            said = cli("db", "reset", "--yes")
        finally:
            os.close(descriptor)
        assert said.code == 1
        assert "4711" in said.err
        assert len(cli("runs", "list", "--json").json) == 1


@pytest.fixture
def old_runs(plane):
    """One run more of `d` than stay, ended in 2026."""
    for number in range(KEPT_RUNS + 1):
        plane.add_run("d", f"r{number}")
        while works := plane.tick():
            for work in works:
                plane.play(work)
    return plane


def test_clean_shows_plan_and_changes_nothing_without_yes(cli, old_runs, monkeypatch):
    monkeypatch.setattr("trainflow.clock.SystemClock.now", lambda _self: START + timedelta(days=100))
    said = cli("db", "clean", "--older-than", "90d", "--dry-run")
    assert (said.code, said.out.splitlines()[-1]) == (0, "would delete 1 run and 0 logs (0 B)")
    monkeypatch.setattr(typer, "confirm", lambda _question: False)
    said = cli("db", "clean", "--older-than", "90d")
    assert (said.code, said.out.splitlines()[-1]) == (1, "nothing was changed")
    assert len(cli("runs", "list", "d", "--json").json) == KEPT_RUNS + 1


def test_clean_deletes_what_ended_long_ago(cli, old_runs, monkeypatch):
    monkeypatch.setattr("trainflow.clock.SystemClock.now", lambda _self: START + timedelta(days=100))
    facts = cli("db", "clean", "--older-than", "90d", "--yes", "--json").json
    assert (facts["dags"][0]["runs"], facts["awaited"], facts["logs"]) == (1, 0, 0)
    assert [run["number"] for run in cli("runs", "list", "d", "--json").json][-1] == 2
    assert cli("db", "clean", "--older-than", "90d").out.startswith("no run that ended before 2026-")


def test_clean_prints_json_alone_and_so_does_not_ask(cli, folder):
    said = cli("db", "clean", "--older-than", "90d", "--json")
    assert (said.code, said.out, "add --yes, or --dry-run" in said.err) == (2, "", True)


@pytest.mark.parametrize("age", ["12h", "many days"])
def test_clean_refuses_age_that_is_too_young_or_none(cli, folder, age):
    said = cli("db", "clean", "--older-than", age)
    assert (said.code, "--older-than" in said.err) == (2, True)
