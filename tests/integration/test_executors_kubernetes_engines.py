"""Pods of engines that end: the next one goes on with them, and none is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_executors_kubernetes import (
    _leftover_supervisors_end,  # noqa: F401 - a fixture of every test
    engines_with,
    goes_on,
    pod_run,
    pods_are_gone,
)
from trainflow.testing.kubernetes_api.resources import PODS
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("made", [True, False])
def test_queued_attempt_of_an_engine_that_ended_goes_on_or_is_made_anew(tmp_path: Path, made: bool) -> None:
    with engines_with(tmp_path) as (next_engine, cluster):
        cluster.kubelet.let_schedule("no node")
        with next_engine() as first:
            run = first.trigger("contract_says")
            first.until(cluster.pods)
            first.engine.stop_requested = 1
        if not made:
            cluster.store.remove(PODS, "default", cluster.pods()[0]["metadata"]["name"])
        cluster.kubelet.let_schedule()
        with next_engine() as second:
            assert second.finish(run) == "success"
            assert second.outcomes(run) == (["success"] if made else ["undelivered", "success"])
            assert (second.task(run).lost, second.task(run).failures) == (0, 0)
            pods_are_gone(second, cluster)


def test_pod_of_an_attempt_that_has_reported_is_deleted_although_its_engine_ends_first(tmp_path: Path) -> None:
    """As that of a chain that is caught up."""
    with engines_with(tmp_path) as (next_engine, cluster):
        with next_engine() as engine:
            run = engine.trigger("contract_waits")
            engine.until(lambda: engine.is_running(run))
            pod_run(cluster).silent = True  # that it has ended is not said
            goes_on(engine, run)
        wait_for(lambda: cluster.pods() == [], "the end of the pod")
