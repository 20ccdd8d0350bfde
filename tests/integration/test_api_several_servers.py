"""Several API servers over one database: whichever is asked, the answer is the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.api import OTHER_TOKEN, TOKEN, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.messages.execution_api import Heartbeat, Outcome, OutcomeState


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        plane.add_dag("d", empty_task("a"))
        plane.add_run("d")
        yield plane


def test_attempt_goes_on_at_another_server_when_its_own_is_gone(plane: ControlPlane) -> None:
    (work,) = plane.tick()
    with ExitStack() as second:
        with running_api(plane) as one:
            other = second.enter_context(running_api(plane))
            secret = one.issue(work)
            assert one.start(work, secret).status == 200
            # the claim is exchanged once, at whichever server
            assert other.start(work, secret, OTHER_TOKEN).status == 409
            assert other.post(Heartbeat(work.key), TOKEN).status == 200
        assert other.post(Heartbeat(work.key), TOKEN).status == 200
        assert other.post(Outcome(work.key, OutcomeState.SUCCESS), TOKEN).status == 200
        assert other.post(Outcome(work.key, OutcomeState.SUCCESS), TOKEN).status == 200
        assert other.post(Heartbeat(work.key), OTHER_TOKEN).status == 401
    assert plane.task(1, "a").state == "success"
