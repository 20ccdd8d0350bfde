"""A database that is away for a while, or busy with being made."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.integration.pool_changes import add_to, slots
from tests.support.control_plane import ControlPlane, control_plane
from trainflow.errors import DatabaseUnavailable, EngineError
from trainflow.metadata.database import Database
from trainflow.metadata.queries import pool_queries
from trainflow.metadata.transaction_retries import is_conflict


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        with plane.database.transaction() as connection:
            for name in ("first", "second"):
                pool_queries.put(connection, name, 1, description="", include_deferred=False)
        yield plane


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as plane:
        yield plane


MayRefuse = Callable[[Database, Callable[[], bool]], None]


class TestOnSqlite:
    def test_transaction_reads_one_snapshot(self, on_sqlite: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second writer waits from its beginning: it cannot decide on what the first one is changing."""
        monkeypatch.setattr("trainflow.metadata.database.BUSY_TIMEOUT_SECONDS", 0)
        database, other = on_sqlite.database, Database(f"sqlite:///{on_sqlite.project.home.database}")
        with database.transaction(), pytest.raises(EngineError, match="locked") as caught, other.transaction():
            pass
        assert is_conflict(caught.value)
        # a reader is never in the way
        with database.transaction(), other.reading() as connection:
            assert pool_queries.slots(connection)["default_pool"].slots == 128
        other.close()

    def test_new_database_waits_for_its_maker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """SQLite's own time-out does not hold while the file is switched to a write-ahead log."""
        maker = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
        maker.execute("BEGIN IMMEDIATE")
        maker.execute("CREATE TABLE made (number INTEGER)")
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                maker.execute("COMMIT")

        monkeypatch.setattr("trainflow.metadata.database._pause", pause)
        database = Database(f"sqlite:///{tmp_path / 'new.db'}")
        with database.reading() as connection:
            assert connection.execute(text("SELECT count(*) FROM made")).scalar() == 0
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert len(pauses) == 3
        database.close()
        maker.close()

    def test_new_database_is_waited_for_a_bounded_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trainflow.metadata.database.BUSY_TIMEOUT_SECONDS", 0)
        maker = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
        maker.execute("BEGIN EXCLUSIVE")
        database = Database(f"sqlite:///{tmp_path / 'new.db'}")
        with pytest.raises(EngineError, match=r"cannot open the metadata database .*new\.db: database is locked"):
            database.reading().__enter__()
        maker.close()

    def test_transaction_that_waited_in_vain_waits_again(
        self, on_sqlite: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trainflow.metadata.database.BUSY_TIMEOUT_SECONDS", 0)
        other = Database(f"sqlite:///{on_sqlite.project.home.database}")
        with on_sqlite.database.transaction() as holding:
            calls: list[int] = []

            def begin() -> None:
                calls.append(len(calls))
                if len(calls) == 3:
                    holding.rollback()
                with other.transaction() as connection:
                    add_to("default_pool")(connection)

            other.retrying(begin)
        assert calls == [0, 1, 2]
        assert slots(other) == {"default_pool": 129}
        other.close()


class TestADatabaseThatIsAway:
    """SQLite refuses to write, as on a disk that is full or was mounted anew."""

    @pytest.fixture
    def database(self, on_sqlite: ControlPlane, may_refuse: MayRefuse) -> Database:
        self.refuses = True
        self.now = 0.0
        self.slept: list[float] = []
        database = on_sqlite.database
        database.monotonic = lambda: self.now
        database.sleep = self._sleep
        may_refuse(database, lambda: self.refuses)
        return database

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def test_database_away_is_waited_for(self, database: Database) -> None:
        def sleep(seconds: float) -> None:
            self._sleep(seconds)
            self.refuses = len(self.slept) < 4

        database.sleep = sleep
        told: list[str] = []
        database.tell = told.append
        database.write(add_to("default_pool"))
        assert self.slept == [0.1, 0.2, 0.4, 0.8]
        away, back = told
        assert away.startswith(f"the metadata database {database.file} cannot be used now: attempt to write a readonly")
        assert away.endswith("It is asked again for 60 s; attempts that run go on meanwhile")
        assert back == f"the metadata database {database.file} can be used again"
        assert slots(database)["default_pool"] == 129

    def test_database_away_is_told_once_by_all_threads(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                database.write(add_to("default_pool"))
        self.refuses = False
        for _ in range(2):
            database.write(add_to("default_pool"))
        away, back = (record.getMessage() for record in caplog.records)
        assert "cannot be used now: attempt to write a readonly" in away
        assert back == f"the metadata database {database.file} can be used again"

    def test_database_away_for_a_minute_is_given_up(self, database: Database) -> None:
        with pytest.raises(DatabaseUnavailable, match=r"readonly.*Nothing is lost"):
            database.write(add_to("default_pool"))
        assert 60 <= sum(self.slept) < 63
        self.refuses = False
        assert slots(database)["default_pool"] == 128

    def test_database_away_with_many_callers_is_given_up_once(self, database: Database) -> None:
        with pytest.raises(DatabaseUnavailable):
            database.retrying(lambda: database.write(add_to("default_pool")))
        assert sum(self.slept) < 63

    def test_database_away_with_caller_giving_up_is_given_up(self, database: Database) -> None:
        database.give_up = lambda: len(self.slept) == 2
        with pytest.raises(DatabaseUnavailable):
            database.write(add_to("default_pool"))
        assert len(self.slept) == 2

    def test_database_away_takes_back_side_effects_each_time(self, database: Database) -> None:
        calls: list[str] = []

        def work() -> None:
            calls.append("work")
            self.refuses = calls.count("work") < 3
            with database.transaction() as connection:
                add_to("default_pool")(connection)

        database.retrying(work, before_again=lambda: calls.append("taken back"))
        assert calls == ["work", "taken back", "work", "taken back", "work"]
