"""The deliverer as the process it is: killed, left alone, in front of a server that is not there."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from trainflow.errors import DelivererLost
from trainflow.settings.home import Home
from trainflow.settings.model import TrackingSettings
from trainflow.tracking.deliveries import (
    Delivered,
    NotDelivered,
    OpenStore,
    RunFinished,
    RunStarted,
    TrackedChain,
    TrackedRun,
)
from trainflow.tracking.delivery_client import DeliveryClient
from trainflow.tracking.ui import target

pytestmark = pytest.mark.slow

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = TrackedRun(TrackedChain("p"), "p", "r", AT)
STARTED = RunStarted(RUN)
FINISHED = RunFinished(RUN, "success", AT + timedelta(seconds=5))

#: the deliverer, killed by SIGKILL right after MLflow has made the run whose name is the first argument
DIES_AFTER_CREATE = """
import os, signal, sys
from mlflow.tracking.client import MlflowClient
create = MlflowClient.create_run
def create_and_die(self, experiment_id, start_time=None, tags=None, run_name=None):
    run = create(self, experiment_id, start_time, tags, run_name)
    if run_name == "r":
        os.kill(os.getpid(), signal.SIGKILL)
    return run
MlflowClient.create_run = create_and_die
from trainflow.tracking.deliverer import main
main(sys.argv[1:])
"""

#: the deliverer, killed by SIGKILL in the middle of making the store
DIES_WHILE_IT_MAKES_THE_STORE = """
import os, signal, sys
from alembic.runtime.migration import MigrationContext
run = MigrationContext.run_migrations
def run_some_and_die(self, **kwargs):
    steps = self._migrations_fn
    def some(*arguments):
        for number, step in enumerate(steps(*arguments)):
            if number == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            yield step
    self._migrations_fn = some
    run(self, **kwargs)
MigrationContext.run_migrations = run_some_and_die
from trainflow.tracking.deliverer import main
main(sys.argv[1:])
"""


@pytest.mark.exhaustive
def test_deliverer_killed_while_making_store_is_followed_by_one_that_makes_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    where, log = target(TrackingSettings(), home), tmp_path / "deliverer.log"
    command = (sys.executable, "-W", "ignore", "-c", DIES_WHILE_IT_MAKES_THE_STORE)
    dying = DeliveryClient.start(where, log_file=log, command=command)
    with pytest.raises(DelivererLost, match="ended with exit code -9"):
        dying.deliver(1, STARTED)
    dying.close()
    assert not home.mlflow_database.exists()

    client = DeliveryClient.start(where, log_file=log)
    answers = [client.deliver(1, STARTED), client.deliver(2, FINISHED)]
    assert client.close() == 0
    assert all(isinstance(answer, Delivered) for answer in answers), answers
    assert len(_run_keys(home)) == 2
    assert not list(home.mlflow_database.parent.glob("*.making*"))
    assert log.read_text() == ""


@pytest.mark.exhaustive
def test_deliverer_killed_before_acknowledgement_leaves_one_run(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    where, log = target(TrackingSettings(), home), tmp_path / "deliverer.log"
    dying = DeliveryClient.start(where, log_file=log, command=(sys.executable, "-W", "ignore", "-c", DIES_AFTER_CREATE))
    with pytest.raises(DelivererLost, match="ended with exit code -9"):
        dying.deliver(1, STARTED)
    assert dying.close() == -signal.SIGKILL
    assert len(_run_keys(home)) == 2  # it did die after the run was made

    client = DeliveryClient.start(where, log_file=log)
    answers = [client.deliver(1, STARTED), client.deliver(2, FINISHED), client.deliver(2, FINISHED)]
    assert client.close() == 0

    assert all(isinstance(answer, Delivered) for answer in answers), answers
    keys = _run_keys(home)
    assert len(keys) == len(set(keys)) == 2  # the chain and the run
    assert log.read_text() == ""  # nothing to report, and nothing of MLflow's own chatter


def test_delivery_to_absent_server_is_refused_with_reason_at_once(tmp_path: Path) -> None:
    client = DeliveryClient.start(OpenStore("http://me:geheim@127.0.0.1:1"), log_file=tmp_path / "log")
    first, second = client.deliver(1, STARTED), client.deliver(2, FINISHED, timeout_seconds=30)
    client.close()
    assert isinstance(first, NotDelivered)
    assert first.retry
    assert "127.0.0.1" in first.reason
    assert "refused" in first.reason
    assert isinstance(second, NotDelivered)
    assert second.reason == first.reason
    assert "geheim" not in first.reason + (tmp_path / "log").read_text()


def test_deliverer_that_is_silent_is_lost_and_killed_on_close() -> None:
    client = DeliveryClient.start(OpenStore("unused"), command=(sys.executable, "-c", "import signal; signal.pause()"))
    with pytest.raises(DelivererLost, match="no answer"):
        client.deliver(1, STARTED, timeout_seconds=0.05)
    assert client.close(grace_seconds=0.05) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(client.pid, 0)


def test_deliverer_that_takes_nothing_more_is_lost() -> None:
    """A delivery that is larger than what a socket holds."""
    client = DeliveryClient.start(OpenStore("unused"), command=(sys.executable, "-c", "import signal; signal.pause()"))
    large = msgspec.structs.replace(STARTED, run=msgspec.structs.replace(RUN, params={"all": "x" * 4_000_000}))
    with pytest.raises(DelivererLost, match="timed out"):
        client.deliver(1, large, timeout_seconds=0.05)
    assert client.close(grace_seconds=0.05) == -signal.SIGKILL


def _run_keys(home: Home) -> list[str]:
    database = sqlite3.connect(home.mlflow_database)
    try:
        return [key for (key,) in database.execute("SELECT value FROM tags WHERE key = 'trainflow.run_key'")]
    finally:
        database.close()
