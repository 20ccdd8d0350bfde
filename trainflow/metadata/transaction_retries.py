"""What a failed transaction means, and whether it is done again: it lost against another one, its database is away for
a while or is damaged, it does not take the values it was given, or none of these."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy.exc import DBAPIError, StatementError

from trainflow.errors import DatabaseDamaged, DatabaseUnavailable, EngineError
from trainflow.metadata.sqlite_reader import code_of, is_damaged

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: a transaction that has lost this often in a row is not unlucky: something is wrong
CONFLICT_TRIES = 5
#: so long a database may be away: what it is asked then waits
OUTAGE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0

#: PostgreSQL: deadlock, serialization failure, unique violation; a prepared statement that a pooler has lost, that
#: is another's, or that is older than its tables (`postgres_pipeline` begins anew then)
_POSTGRESQL_CONFLICTS = frozenset({"40P01", "40001", "23505", "26000", "42P05"})
_STALE_PLAN = "cached plan must not change result type"
#: PostgreSQL: connection lost, resources used up (disk, memory, connections), shut down or starting, failed disk; a
#: transaction that stood still for too long
_POSTGRESQL_OUTAGES = ("08", "53", "57P", "58", "25P03")
#: MySQL and MariaDB: deadlock, lock wait timeout (what NOWAIT answers on MariaDB), NOWAIT on MySQL, duplicate entry
_MYSQL_CONFLICTS = frozenset({1213, 1205, 3572, 1062})
#: MySQL and MariaDB: disk full, too many connections, shutting down, cannot connect, gone away, lost; a
#: connection that stood still for too long
_MYSQL_OUTAGES = frozenset({0, 1021, 1040, 1053, 1927, 2002, 2003, 2006, 2013, 2055, 4031})
_SQLITE_CONFLICTS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_OUTAGES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM}
)
#: of the conflicts, those in which a row is there already: done again, it may be there for good
_DUPLICATES = frozenset({"23505", 1062})


class Waits(Protocol):
    """A database that may be away for a while, and how long it is waited for."""

    patience_seconds: float
    #: it was away the last time that it was asked: that was told, whichever of many threads asked
    is_away: bool
    sleep: Callable[[float], None]
    monotonic: Callable[[], float]
    give_up: Callable[[], bool]

    def went_away(self, error: DBAPIError | EngineError) -> None:
        """Tell that it is away, and waited for from now on."""
        ...

    def came_back(self, *, done_again: bool) -> None:
        """Tell that it answers; `done_again`: what was waited for is done."""
        ...

    def away(self, error: DBAPIError | EngineError) -> DatabaseUnavailable:
        """The error that is raised when that was not enough."""
        ...


def retry(work: Callable[[], _T], waits: Waits, *, before_again: Callable[[], None] | None) -> _T:
    """What `work` returns; what `Database.retrying` says of it is done here."""
    conflicts, deadline, pause = 0, None, _FIRST_PAUSE_SECONDS
    while True:
        try:
            result = work()
            if deadline is not None or waits.is_away:
                waits.came_back(done_again=deadline is not None)
            return result
        except (DatabaseUnavailable, DatabaseDamaged):
            raise
        except (DBAPIError, EngineError) as error:
            if is_conflict(error):
                conflicts += 1
                if conflicts == CONFLICT_TRIES:
                    raise
                log.info("a transaction lost against another one and is done again: %s", error)
            elif is_outage(error):
                first = deadline is None
                deadline = waits.monotonic() + waits.patience_seconds if deadline is None else deadline
                if waits.monotonic() >= deadline or waits.give_up():
                    raise waits.away(error) from error
                if first:
                    waits.went_away(error)
                log.debug("the metadata database is away, asking again in %.1f s: %s", pause, _driver_error(error))
                waits.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            else:
                raise
        if before_again is not None:
            before_again()


def is_conflict(error: BaseException) -> bool:
    """Whether a transaction failed only because of another one."""
    driver = _driver_error(error)
    if isinstance(driver, sqlite3.Error):
        return code_of(driver) in _SQLITE_CONFLICTS
    if _is_mysql(driver):
        # its errors carry a standard's state as well, in newer drivers only, and it says less than the code
        return _mysql_code(driver) in _MYSQL_CONFLICTS
    state = getattr(driver, "sqlstate", None)
    return state in _POSTGRESQL_CONFLICTS or (state == "0A000" and _STALE_PLAN in str(driver))


def is_outage(error: BaseException) -> bool:
    """Whether it failed because the database is away or cannot write now: a full disk, a lost connection, a restart."""
    driver = _driver_error(error)
    if isinstance(driver, sqlite3.Error):
        return code_of(driver) in _SQLITE_OUTAGES
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if _is_mysql(driver):
        return _mysql_code(driver) in _MYSQL_OUTAGES
    if getattr(driver, "sqlstate", None) is not None:
        return str(driver.sqlstate).startswith(_POSTGRESQL_OUTAGES)
    # psycopg says nothing more of a server that cannot be reached
    return type(driver).__module__.startswith("psycopg") and type(driver).__name__ == "OperationalError"


def is_damage(error: BaseException) -> bool:
    """Whether the file of the database is damaged. Nothing that is asked of it can be relied on."""
    driver = _driver_error(error)
    return isinstance(driver, sqlite3.Error) and is_damaged(driver)


def is_own_fault(error: Exception) -> bool:
    """Whether it is the fault of the thing that was looked at. What befalls everything alike is not: a transaction that
    lost, a database that is away or damaged, memory or descriptors that ran out."""
    if isinstance(error, MemoryError | OSError | EngineError):
        return False
    return not (is_conflict(error) or is_outage(error) or is_damage(error))


def is_refusal(error: BaseException) -> bool:
    """Whether the database, or what writes values for it, does not take what it was given. Asked again it would not
    either."""
    if not isinstance(error, StatementError):
        return isinstance(error, ValueError | TypeError | OverflowError | RecursionError | msgspec.MsgspecError)
    if is_outage(error) or is_damage(error):
        return False
    return not is_conflict(error) or _is_duplicate(error)


def _is_duplicate(error: BaseException) -> bool:
    driver = _driver_error(error)
    return (_mysql_code(driver) if _is_mysql(driver) else getattr(driver, "sqlstate", None)) in _DUPLICATES


def _driver_error(error: BaseException) -> Any:
    while not isinstance(error, DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    return error.orig if isinstance(error, DBAPIError) else error


def _is_mysql(error: Any) -> bool:
    return isinstance(error, Exception) and type(error).__module__.startswith("pymysql")


def _mysql_code(error: Any) -> Any:
    return next(iter(error.args), None)
