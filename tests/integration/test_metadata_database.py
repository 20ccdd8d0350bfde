"""Transactions: all or nothing, a view that does not change, and again when they lose against another one."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection, insert, select, text

from tests.integration.pool_changes import add_to, slots
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.local_databases import LocalMariaDB, LocalServer
from trainflow.errors import EngineError
from trainflow.messages.execution_api import OutcomeState, Progress, Started, XComItem
from trainflow.metadata.database import Database
from trainflow.metadata.queries import in_flight, pool_queries, status_queries, task_queries
from trainflow.metadata.queries.pool_queries import POOL
from trainflow.metadata.transaction_retries import CONFLICT_TRIES, is_conflict


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        with plane.database.transaction() as connection:
            for name in ("first", "second"):
                pool_queries.put(connection, name, 1, description="", include_deferred=False)
        yield plane


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

    def test_connection_that_is_cut_as_a_transaction_begins_is_opened_again(
        self, plane: ControlPlane, server: LocalServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        which, cut = _CUT[plane.database.url.get_backend_name()]
        plane.database.sleep = lambda _: None
        with plane.database.reading() as connection:
            number = connection.execute(text(which)).scalar_one()
        # it was whole when it was last looked at
        monkeypatch.setattr("trainflow.metadata.database._is_lost", lambda _: False)
        server.execute(cut.format(number))
        assert plane.database.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one()) == 1

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


def test_outcome_larger_than_server_takes_fails_its_attempt_alone(tmp_path: Path, mariadb: LocalServer) -> None:
    with control_plane(tmp_path, database_url=mariadb.clean_database()) as plane:
        with plane.database.transaction() as connection:
            limit = connection.execute(text("SELECT @@max_allowed_packet")).scalar_one()
        plane.add_dag("d", empty_task("a"), empty_task("b"))
        plane.add_run("d")
        first, second = plane.tick()
        value = msgspec.Raw(b'"%b"' % (b"x" * limit))
        plane.play(first, OutcomeState.SUCCESS, xcoms=[XComItem("v", value)])
        plane.play(second, OutcomeState.SUCCESS)
        assert plane.states(1) == {"a": "failed", "b": "success"}
        assert "max_allowed_packet" in plane.task(1, "a").problem


def test_connection_over_a_socket_reads_no_certificates(mariadb: LocalMariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr(ssl, "create_default_context", lambda **_options: read.append(1))
    with closing(Database(mariadb.clean_database())) as database:
        assert database.read(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1
    assert read == []
