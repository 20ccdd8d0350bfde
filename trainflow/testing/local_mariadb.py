"""A MariaDB server of our own (Debian's `mariadb-server`), for tests of the metadata database."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainflow.testing.local_server import LocalServer

if TYPE_CHECKING:
    from sqlalchemy import Connection

START_SECONDS = 120.0
_PAUSE_SECONDS = 0.02
#: Debian keeps the server where only an administrator's PATH looks
_ADMINISTRATORS_PATH = "/usr/sbin:/usr/local/sbin:/sbin"
#: small, without a port, and nothing in it has to survive the machine
_SMALL = (
    "--skip-networking",
    "--skip-log-bin",
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=32M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--performance-schema=OFF",
)


class LocalMariaDB(LocalServer):
    """A running MariaDB server."""

    administration = "mysql"

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        super().__init__()

    def url(self, database: str) -> str:
        return f"mysql+pymysql://root@localhost/{database}?unix_socket={self._socket}"

    def empty(self, connection: Connection, tables: list[str]) -> None:
        from sqlalchemy import text

        connection.execute(text("SET lock_wait_timeout = 10, innodb_lock_wait_timeout = 10, foreign_key_checks = 0"))
        for name in tables:
            # TRUNCATE would make a file anew for each of them
            if connection.execute(text(f"SELECT 1 FROM `{name}` LIMIT 1")).first() is not None:
                connection.execute(text(f"DELETE FROM `{name}`"))
        numbered = "FROM information_schema.tables WHERE table_schema = DATABASE() AND auto_increment > 1"
        for (name,) in connection.execute(text(f"SELECT table_name {numbered}")).all():
            connection.execute(text(f"ALTER TABLE `{name}` AUTO_INCREMENT = 1"))


@contextmanager
def local_mariadb() -> Iterator[LocalMariaDB]:
    """Run a server. Where it cannot be run the test is skipped, saying why; with `CI` set that is an error."""
    with tempfile.TemporaryDirectory(prefix="trainflow-mariadb-") as name:
        folder = Path(name)
        try:
            process = _start(folder)
        except Exception as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no local MariaDB: {error}; apt-get install mariadb-server and pip install 'trainflow[test]'")
        try:
            server = LocalMariaDB(folder / "socket")
            yield server
            server.close()
        finally:
            process.kill()
            process.wait()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    import pymysql  # noqa: F401

    us, data = f"--user={getpass.getuser()}", f"--datadir={folder / 'data'}"
    make = [_program("mariadb-install-db"), "--no-defaults", us, data, "--innodb-log-file-size=4M", "--skip-test-db"]
    made = subprocess.run([*make, "--auth-root-authentication-method=normal"], capture_output=True, check=False)
    if made.returncode != 0:
        raise OSError(f"mariadb-install-db failed: {(made.stdout + made.stderr).decode(errors='replace')[-2000:]}")
    command = [_program("mariadbd"), "--no-defaults", us, data, f"--socket={folder / 'socket'}", *_SMALL]
    # a test run that is killed takes its server along
    along = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*along, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_until_ready(process, folder)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while b"ready for connections" not in (said := (folder / "log").read_bytes()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise OSError(f"mariadbd is not ready after {START_SECONDS:g} s: {said[-2000:].decode(errors='replace')}")
        time.sleep(_PAUSE_SECONDS)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_ADMINISTRATORS_PATH}")
    if found is None:
        raise FileNotFoundError(f"no program '{name}'")
    return found
