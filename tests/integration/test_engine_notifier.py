"""Notices on their way: written with what they tell, told at least once, whatever fails or restarts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from tests.support.webhook import SECRET, Receiver, webhook
from trainflow.clock import ManualClock
from trainflow.engine import notifier as module
from trainflow.engine.notifier import Notifier
from trainflow.executors.reactor import Reactor
from trainflow.messages.notice import Event, Notice
from trainflow.metadata import schema
from trainflow.metadata.database import Database
from trainflow.metadata.queries import notification_queries
from trainflow.settings.model import NotificationSettings, Settings
from trainflow.settings.project import project_at

NOTICE = Notice(event=Event.STOPPED, key="one", sentence="it stopped", pipeline="flights")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook() as found:
        yield found


class NotifierFixture:
    """A database, and one notifier after the other over it."""

    def __init__(self, root: Path) -> None:
        (root / "configs").mkdir()
        (root / "configs" / "trainflow.toml").write_text("")
        self.project = project_at(root)
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.reactor = Reactor(self.clock)
        self.database = Database.of(self.project.home, Settings())
        schema.ensure_schema(self.database)

    def add(self, notice: Notice = NOTICE) -> bool:
        with self.database.transaction() as connection:
            return notification_queries.add(connection, notice, self.clock.now())

    def notifier(self, webhook: str | None = None, command: list[str] | None = None) -> Notifier:
        wanted = NotificationSettings(webhook=webhook, command=command or [])
        return Notifier(
            self.database,
            self.reactor,
            clock=self.clock,
            project=self.project,
            settings=Settings(notifications=wanted),
        )

    def waiting(self) -> tuple[int, str | None]:
        with self.database.reading() as connection:
            return notification_queries.undelivered(connection)

    def close(self) -> None:
        self.database.close()
        self.reactor.close()


@pytest.fixture
def notifying(tmp_path: Path) -> Iterator[NotifierFixture]:
    made = NotifierFixture(tmp_path)
    yield made
    made.close()


def run(notifier: Notifier) -> None:
    notifier.drain(30, lambda: False)


def test_notice_found_out_repeatedly_is_told_once(notifying: NotifierFixture, receiver: Receiver) -> None:
    notifier = notifying.notifier(receiver.url)
    assert notifying.add() is True
    assert notifying.add(msgspec.structs.replace(NOTICE, sentence="it stopped, again")) is False
    run(notifier)
    assert notifying.add() is False
    run(notifier)

    assert [message["sentence"] for message in receiver.messages] == ["it stopped"]
    assert receiver.messages[0]["project"] == notifying.project.root.name
    assert receiver.messages[0]["at"] == "2026-01-01T00:00:00Z"
    assert notifying.waiting() == (0, None)
    notifier.close()


def test_notice_of_another_chain_is_another_notice(notifying: NotifierFixture, receiver: Receiver) -> None:
    for branch in ("main", "b"):
        assert notifying.add(msgspec.structs.replace(NOTICE, branch=branch))
    notifier = notifying.notifier(receiver.url)
    run(notifier)

    assert [message["branch"] for message in receiver.messages] == ["main", "b"]
    notifier.close()


def test_receiver_that_is_down_is_tried_again_later_and_later(
    notifying: NotifierFixture, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.refuse = [500, 503]
    notifier = notifying.notifier(receiver.url)
    notifying.add()
    run(notifier)
    assert notifying.waiting() == (1, "the webhook at 127.0.0.1 answered 500")
    notifier.tick()
    assert notifier.seconds_left == 5.0

    for seconds in (4, 1):  # not before it is due
        notifying.clock.advance(timedelta(seconds=seconds))
        run(notifier)
    assert notifying.waiting() == (1, "the webhook at 127.0.0.1 answered 503")
    notifying.clock.advance(timedelta(seconds=10))
    run(notifier)

    assert receiver.events == ["stopped"]
    assert notifying.waiting() == (0, None)
    assert "answered 503" in caplog.text
    assert SECRET not in caplog.text
    notifier.close()


def test_notice_refused_does_not_delay_others(notifying: NotifierFixture, receiver: Receiver) -> None:
    receiver.refuse = [500]
    notifier = notifying.notifier(receiver.url)
    notifying.add()
    notifying.add(msgspec.structs.replace(NOTICE, key="two", event=Event.RESUMED))
    run(notifier)

    assert receiver.events == ["resumed"]
    notifier.close()


def test_next_engine_tells_what_last_one_could_not(notifying: NotifierFixture, receiver: Receiver) -> None:
    first = notifying.notifier("http://127.0.0.1:1/")
    notifying.add()
    run(first)
    first.close()
    assert notifying.waiting()[0] == 1

    second = notifying.notifier(receiver.url)  # does not wait for what its predecessor's pause was
    run(second)

    assert receiver.events == ["stopped"]
    second.close()


def test_notice_target_that_fails_does_not_delay_others(notifying: NotifierFixture, receiver: Receiver) -> None:
    folder = notifying.project.root
    program = (
        "import pathlib, sys\n"
        "told = pathlib.Path('told'); tried = pathlib.Path('tried')\n"
        "first = not tried.exists(); tried.touch()\n"
        "sys.exit(1) if first else told.open('a').write(sys.stdin.read())"
    )
    notifier = notifying.notifier(receiver.url, [sys.executable, "-c", program])
    notifying.add()
    run(notifier)
    assert receiver.events == ["stopped"]
    assert not (folder / "told").exists()

    notifying.clock.advance(timedelta(seconds=5))
    run(notifier)

    assert receiver.events == ["stopped"]
    assert msgspec.json.decode((folder / "told").read_bytes()) == receiver.messages[0]
    notifier.close()


def test_notice_failing_too_often_is_given_up(notifying: NotifierFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FAILURES", 2)
    notifier = notifying.notifier("http://127.0.0.1:1/")
    notifying.add()
    run(notifier)
    assert notifying.waiting()[0] == 1
    notifying.clock.advance(timedelta(seconds=5))
    run(notifier)

    assert notifying.waiting() == (0, None)
    notifier.close()


def test_notice_without_target_is_not_told_later(notifying: NotifierFixture, receiver: Receiver) -> None:
    notifying.add()
    run(notifying.notifier())
    second = notifying.notifier(receiver.url)
    notifying.add(msgspec.structs.replace(NOTICE, key="two", event=Event.RESUMED))
    run(second)

    assert receiver.events == ["resumed"]
    second.close()


def test_notice_row_not_understood_is_given_up_alone(notifying: NotifierFixture, receiver: Receiver) -> None:
    for key in ("a", "b", "c"):
        notifying.add(msgspec.structs.replace(NOTICE, key=key))
    with notifying.database.transaction() as connection:
        table = notification_queries.NOTIFICATION
        second = sorted(connection.execute(select(table.c.id)).scalars())[1]
        connection.execute(update(table).where(table.c.id == second).values(notice={"no": "notice"}))
    run(notifying.notifier(receiver.url))
    assert len(receiver.messages) == 2
    with notifying.database.reading() as connection:
        reasons = [row.reason for row in connection.execute(select(table).order_by(table.c.id)).all()]
    assert reasons[0] is reasons[2] is None
    assert "cannot be understood" in reasons[1]
    assert notifying.waiting()[0] == 0


def test_notice_delivery_with_unexpected_error_keeps_thread_alive(
    notifying: NotifierFixture, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a", "b"):
        notifying.add(msgspec.structs.replace(NOTICE, key=key))
    real = Notifier._deliver
    calls: list[int] = []

    def deliver(self: Notifier, job: Any) -> Any:
        calls.append(job.id)
        if len(calls) == 1:
            raise ZeroDivisionError("\ud800\x00")
        return real(self, job)

    monkeypatch.setattr(Notifier, "_deliver", deliver)
    run(notifying.notifier(receiver.url))
    count, reason = notifying.waiting()
    assert count == 1
    assert "ZeroDivisionError" in (reason or "")
    assert len(receiver.messages) == 1
