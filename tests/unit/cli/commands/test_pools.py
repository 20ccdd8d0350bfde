from __future__ import annotations

import pytest

from tests.support.control_plane import empty_task


def pools(cli):
    return {row["name"]: row for row in cli("pools", "list", "--json").json}


def test_documented_keys_and_what_is_in_use(plane, cli, nudged):
    cli("pools", "set", "gpu", "4", "--description", "cards")
    plane.add_dag("g", empty_task("x", pool="gpu", pool_slots=3))
    plane.add_run("g")
    plane.tick()
    gpu = pools(cli)["gpu"]
    assert gpu == {
        "name": "gpu",
        "slots": 4,
        "include_deferred": False,
        "description": "cards",
        "running": 0,
        "queued": 3,
        "scheduled": 0,
        "deferred": 0,
        "open": 1,
    }
    assert nudged == [plane.project.home.socket_path]


def test_pools_set_keeps_what_is_not_given(plane, cli):
    cli("pools", "set", "gpu", "4", "--description", "cards", "--include-deferred")
    cli("pools", "set", "gpu", "-1")
    gpu = pools(cli)["gpu"]
    assert (gpu["slots"], gpu["open"], gpu["description"], gpu["include_deferred"]) == (-1, None, "cards", True)
    assert "no limit" in cli("pools", "list").out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("set", "gpu", "-2"), "slots must be 0 or more, or -1"),
        (("set", "a b", "2"), "cannot name a pool"),
        (("set", "gpu", "many"), "many"),
        (("delete", "default_pol"), "did you mean 'default_pool'"),
        (("delete", "default_pool"), "cannot be deleted"),
    ],
)
def test_pools_wrong_input_is_refused(plane, cli, arguments, problem):
    said = cli("pools", *arguments)
    assert said.code == 2
    assert problem in said.err
    assert set(pools(cli)) == {"default_pool"}


def test_deleting_pool_says_who_needs_it(plane, cli):
    cli("pools", "set", "gpu", "0")
    plane.add_dag("g", empty_task("x", pool="gpu"))
    plane.add_run("g")
    plane.tick()
    said = cli("pools", "delete", "gpu")
    assert said.code == 0
    assert "1 task of runs that have not ended names it" in said.err
    assert "gpu" not in pools(cli)
