"""Transactions: all or nothing, a view that does not change, and again when they lose against another one."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from trainflow.errors import DatabaseUnavailable, EngineError
from trainflow.messages.requests import Progress, Started
from trainflow.metadata import in_flight, pool_queries, status_queries, task_queries
from trainflow.metadata.database import CONFLICT_TRIES, Database
from trainflow.metadata.pool_queries import POOL
from trainflow.metadata.transaction_failures import is_conflict, is_outage
from trainflow.testing.control_plane import ControlPlane, control_plane, empty_task
from trainflow.testing.local_server import LocalServer


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


def slots(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        return {name: pool.slots for name, pool in pool_queries.slots(connection).items()}


MayRefuse = Callable[[Database, Callable[[], bool]], None]


def add_to(name: str) -> Callable[[Connection], None]:
    def add(connection: Connection) -> None:
        connection.execute(update(POOL).where(POOL.c.name == name).values(slots=POOL.c.slots + 1))

    return add


def both(*work: Callable[[], object]) -> list[BaseException]:
    """Do it all at once; what was raised."""
    raised: list[BaseException] = []

    def guarded(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


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

        monkeypatch.setattr("trainflow.metadata.database.time.sleep", pause)
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
        database.write(add_to("default_pool"))
        assert self.slept == [0.1, 0.2, 0.4, 0.8]
        assert slots(database)["default_pool"] == 129

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


def _sqlite(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return error


def _wrapped(error: Exception) -> DBAPIError:
    return DBAPIError("SELECT 1", None, error)


def _begun(error: Exception) -> EngineError:
    """As where a transaction begins."""
    try:
        raise EngineError("cannot begin") from error
    except EngineError as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "conflict", "outage"),
    [
        (_wrapped(_sqlite(sqlite3.SQLITE_BUSY)), True, False),
        (_begun(_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT)), True, False),
        (_wrapped(_sqlite(sqlite3.SQLITE_FULL)), False, True),
        (_begun(_sqlite(sqlite3.SQLITE_IOERR_FSYNC)), False, True),
        (_begun(_wrapped(_sqlite(sqlite3.SQLITE_CANTOPEN))), False, True),
        # no such table, a row that is there already: something is wrong, and waiting mends nothing
        (_wrapped(_sqlite(sqlite3.SQLITE_ERROR)), False, False),
        (_wrapped(_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE)), False, False),
        (_wrapped(sqlite3.ProgrammingError("closed")), False, False),
        (EngineError("no"), False, False),
    ],
)
def test_failure_of_sqlite_has_its_meaning(error: Exception, conflict: bool, outage: bool) -> None:
    assert (is_conflict(error), is_outage(error)) == (conflict, outage)


@pytest.mark.parametrize(
    ("state", "conflict", "outage"),
    [
        ("40P01", True, False),
        ("40001", True, False),
        ("08006", False, True),
        ("57P01", False, True),
        ("53100", False, True),
        ("42P01", False, False),
    ],
)
def test_failure_of_postgresql_has_its_meaning(state: str, conflict: bool, outage: bool) -> None:
    error = _wrapped(type("Error", (Exception,), {"sqlstate": state, "__module__": "psycopg.errors"})("x"))
    assert (is_conflict(error), is_outage(error)) == (conflict, outage)


@pytest.mark.parametrize("more", [{}, {"sqlstate": None}, {"sqlstate": "HY000"}, {"sqlstate": "23000"}])
@pytest.mark.parametrize(
    ("code", "conflict", "outage"),
    [
        *((code, True, False) for code in (1213, 1205, 3572, 1062)),
        *((code, False, True) for code in (2006, 2013, 1021)),
        (1146, False, False),
    ],
)
def test_failure_of_mysql_has_its_meaning(code: int, more: dict[str, str | None], conflict: bool, outage: bool) -> None:
    """PyMySQL's errors have a `sqlstate` since 1.2, as psycopg's have."""
    error = _wrapped(type("OperationalError", (Exception,), {"__module__": "pymysql.err", **more})(code, "x"))
    assert (is_conflict(error), is_outage(error)) == (conflict, outage)


def test_view_does_not_change_while_it_is_read(plane: ControlPlane) -> None:
    with plane.database.reading() as connection:
        before = pool_queries.slots(connection)
        both(lambda: plane.database.write(add_to("first")))
        assert pool_queries.slots(connection) == before
    assert slots(plane.database)["first"] == 2


def test_long_query_does_not_delay_heartbeats(plane: ControlPlane) -> None:
    """A page that is slow to read everything must not make living tasks look dead."""
    plane.add_dag("d", empty_task("a"))
    run = plane.add_run("d")
    (workload,) = plane.tick()
    plane.claim(workload)
    now = plane.clock.advance(timedelta(seconds=5))
    with plane.database.reading() as connection:
        assert task_queries.rows_of_run(connection, run)
        assert status_queries.dags(connection)
        beat = lambda: plane.database.write(lambda c: in_flight.heartbeat(c, plane.service_id, now))  # noqa: E731
        assert both(beat, lambda: plane.service.handle(Progress(workload.key, 1))) == []
    assert plane.task(run, "a").heartbeat_at == now


def test_failure_that_no_retry_mends_is_raised_at_once(plane: ControlPlane) -> None:
    calls: list[None] = []

    def wrong() -> None:
        calls.append(None)
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        plane.database.retrying(wrong)
    assert len(calls) == 1


class TestOnAServer:
    @pytest.fixture(params=["postgres", "mariadb"])
    def server(self, request: pytest.FixtureRequest) -> LocalServer:
        running: LocalServer = request.getfixturevalue(request.param)
        return running

    @pytest.fixture
    def database_url(self, server: LocalServer) -> str:
        return server.clean_database()

    def crossing(self, plane: ControlPlane) -> tuple[Callable[[Connection], None], Callable[[Connection], None]]:
        """Two transactions that lock the same two rows in opposite order, the first time at the same moment."""
        barrier = threading.Barrier(2)
        meet = {"first": True, "second": True}

        def lock(one: str, other: str) -> Callable[[Connection], None]:
            def work(connection: Connection) -> None:
                add_to(one)(connection)
                if meet.pop(one, False):
                    barrier.wait(100)
                add_to(other)(connection)

            return work

        return lock("first", "second"), lock("second", "first")

    def test_deadlock_is_conflict_that_one_of_two_loses(self, plane: ControlPlane) -> None:
        def once(work: Callable[[Connection], None]) -> None:
            with plane.database.transaction() as connection:
                work(connection)

        one, other = self.crossing(plane)
        raised = both(lambda: once(one), lambda: once(other))
        assert [is_conflict(error) for error in raised] == [True]
        assert "deadlock" in str(raised[0]).lower()
        assert (slots(plane.database)["first"], slots(plane.database)["second"]) == (2, 2)

    def test_transaction_that_lost_is_done_again(self, plane: ControlPlane) -> None:
        one, other = self.crossing(plane)
        assert both(lambda: plane.database.write(one), lambda: plane.database.write(other)) == []
        assert (slots(plane.database)["first"], slots(plane.database)["second"]) == (3, 3)

    def test_row_looked_for_in_vain_is_seen_next_time(self, plane: ControlPlane) -> None:
        """Two that insert the same row: one of them finds it, neither fails."""
        barrier = threading.Barrier(2)
        seen: list[bool] = []

        def ensure(connection: Connection) -> None:
            there = connection.execute(select(POOL.c.name).where(POOL.c.name == "new")).one_or_none() is not None
            seen.append(there)
            if len(seen) <= 2:
                barrier.wait(100)
            if not there:
                connection.execute(insert(POOL).values(name="new", slots=7, include_deferred=False))

        work = lambda: plane.database.write(ensure)  # noqa: E731
        assert both(work, work) == []
        assert sorted(seen) == [False, False, True]
        assert slots(plane.database)["new"] == 7

    def test_transaction_that_always_loses_is_an_error(self, plane: ControlPlane) -> None:
        calls: list[None] = []

        def twice(connection: Connection) -> None:
            calls.append(None)
            connection.execute(insert(POOL).values(name="first", slots=7, include_deferred=False))

        with pytest.raises(Exception, match=r"(?i)duplicate"):
            plane.database.write(twice)
        assert len(calls) == CONFLICT_TRIES

    def test_connection_that_was_cut_is_opened_again(self, plane: ControlPlane, server: LocalServer) -> None:
        """In the middle of a transaction, and while it lay in the pool."""
        which, cut = _CUT[plane.database.url.get_backend_name()]
        plane.database.sleep = lambda _: None
        cuts: list[None] = []

        def add(connection: Connection) -> None:
            number = connection.execute(text(which)).scalar_one()
            add_to("first")(connection)
            if not cuts:
                cuts.append(server.execute(cut.format(number)))
            add_to("second")(connection)

        plane.database.write(add)
        assert (slots(plane.database)["first"], slots(plane.database)["second"]) == (2, 2)
        with plane.database.reading() as connection:
            number = connection.execute(text(which)).scalar_one()
        server.execute(cut.format(number))
        assert slots(plane.database)["first"] == 2

    def test_tick_and_answer_that_lose_are_done_again(
        self, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In every transaction of a run from beginning to end a real deadlock is lost once."""
        plane.add_dag("d", empty_task("a"), empty_task("b", "a"))
        run = plane.add_run("d")
        original, lost = Database.transaction, 0

        def losing(self: Database) -> object:
            nonlocal lost
            lost += 1
            return original(self) if lost % 2 == 0 else _deadlocked(self, original)

        monkeypatch.setattr(Database, "transaction", losing)
        for _ in range(2):
            (workload,) = plane.tick()
            assert isinstance(plane.claim(workload), Started)
            plane.report(workload)
        plane.tick()
        assert plane.states(run) == {"a": "success", "b": "success"}
        assert plane.run(run).state == "success"
        assert lost >= 10


#: how a server numbers its connections, and how it ends one
_CUT = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({}, 5000)"),
    "mysql": ("SELECT CONNECTION_ID()", "KILL {}"),
}

_DEADLOCK = {
    "postgresql": "DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$",
    "mysql": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'",
}


def _deadlocked(database: Database, transaction: Callable[[Database], object]) -> object:
    """A transaction that does its work and is then chosen as the victim of a deadlock."""

    @contextmanager
    def losing() -> Iterator[Connection]:
        with transaction(database) as connection:  # type: ignore[attr-defined]
            yield connection
            connection.execute(text(_DEADLOCK[database.url.get_backend_name()]))

    return losing()
