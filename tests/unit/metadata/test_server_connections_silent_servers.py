from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event

from trainflow.metadata.database import Database
from trainflow.metadata.postgres_pipeline import PipelinedConnection
from trainflow.metadata.server_connections import CONNECT_SECONDS, SILENT_SECONDS, watch_mysql
from trainflow.metadata.transaction_retries import OUTAGE_SECONDS

POSTGRES = "postgresql+psycopg://trainflow@database.invalid/trainflow"


class Connected(Exception):
    """The driver was asked to connect."""


def options_of(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the driver is asked for."""
    asked: dict[str, Any] = {}

    def connected(*_args: Any, **options: Any) -> None:
        asked.update(options)
        raise Connected

    monkeypatch.setattr(PipelinedConnection, "connected", connected)
    database = Database(url)
    with pytest.raises(Connected), database.reading():
        pass
    return asked


def test_postgres_host_that_is_silent_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = options_of(POSTGRES, monkeypatch)

    assert asked["keepalives"] == 1
    waits = asked["keepalives_idle"] + asked["keepalives_interval"] * asked["keepalives_count"]
    assert waits == SILENT_SECONDS
    assert asked["tcp_user_timeout"] == SILENT_SECONDS * 1000
    # so that a host that is away is tried again within the time for which it is waited for
    assert asked["connect_timeout"] == CONNECT_SECONDS < OUTAGE_SECONDS


def test_postgres_options_in_url_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = options_of(f"{POSTGRES}?keepalives_idle=5&connect_timeout=3&tcp_user_timeout=0", monkeypatch)

    assert (asked["keepalives_idle"], asked["connect_timeout"], asked["tcp_user_timeout"]) == ("5", "3", "0")
    assert asked["keepalives_interval"] == 10


def test_postgres_transaction_that_stands_still_is_ended_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options_of(POSTGRES, monkeypatch)["options"] == "-c idle_in_transaction_session_timeout=30000"
    given = options_of(f"{POSTGRES}?options=-c%20search_path%3Dours", monkeypatch)["options"]
    assert given == "-c search_path=ours -c idle_in_transaction_session_timeout=30000"
    own = "-c idle_in_transaction_session_timeout=0"
    assert options_of(f"{POSTGRES}?options={own}", monkeypatch)["options"] == own


def test_mysql_host_that_is_silent_is_asked() -> None:
    with socket.socket(socket.AF_INET) as line:
        watch_mysql(SimpleNamespace(_sock=line))

        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        found = [
            line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_KEEPIDLE", "TCP_USER_TIMEOUT")
            if hasattr(socket, name)
        ]
    assert found == [10, 3, 30, SILENT_SECONDS * 1000][: len(found)]


def test_mysql_on_this_machine_is_not_asked() -> None:
    with socket.socket(socket.AF_UNIX) as line:
        watch_mysql(SimpleNamespace(_sock=line))

        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_server_connections_are_watched() -> None:
    database = Database("mysql+pymysql://root@database.invalid/trainflow")

    assert event.contains(database.engine, "connect", watch_mysql)
