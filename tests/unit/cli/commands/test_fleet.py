from __future__ import annotations

from tests.support.control_plane import empty_task

KEYS = {"parts", "workers", "executors", "queues", "oldest_waiting", "drained"}


def test_fleet_has_documented_keys(plane, cli):
    plane.add_dag("d", empty_task("a", queue="gpu"))
    plane.add_run("d")
    plane.tick()
    found = cli("fleet", "--json").json
    assert set(found) == KEYS
    (queue,) = found["queues"]
    assert (queue["queue"], queue["executor"], queue["queued"]) == ("gpu", "local", 1)
    assert found["oldest_waiting"]["task_id"] == "a"


def test_drain_and_undrain_are_shown(plane, cli):
    plane.add_dag("d", empty_task("a"))
    assert cli("fleet", "drain", "dag", "d", "--note", "new disk", "--json").json["changed"] is True
    assert cli("fleet", "drain", "dag", "d", "--json").json["changed"] is False
    assert [each["name"] for each in cli("fleet", "--json").json["drained"]] == ["d"]
    assert "'d' is drained" in cli("fleet").out
    assert cli("fleet", "undrain", "dag", "d", "--json").json["drained"] is False
    assert cli("fleet", "--json").json["drained"] == []


def test_what_cannot_be_drained_is_refused(plane, cli):
    said = cli("fleet", "drain", "dags", "d")
    assert (said.code, "did you mean 'dag'" in said.err) == (2, True)
    assert cli("fleet", "undrain", "queue", "gpu").code == 2
