"""`trainflow plan` over a real store and real Parquet files."""

from __future__ import annotations

from tests.integration.cli_days import Days


def test_plan_from_head_on(trained: Days) -> None:
    trained.publish(7, 8, 9, 11)
    before = sorted(path for path in trained.root.rglob("*"))

    plan = trained.json("plan", "days")

    assert [(run["start"][:10], run["end"][:10], run["partitions"]) for run in plan["runs"]] == [
        ("2013-01-08", "2013-01-11", 3),
        ("2013-01-11", "2013-01-13", 1),
    ]
    assert [hole["start"][:10] for hole in plan["runs"][1]["holes"]] == ["2013-01-11"]
    assert (plan["partitions"], plan["rows"], plan["outcome"]) == (4, 20, "caught_up")
    assert (plan["head_number"], plan["watermark"][:10], plan["estimated_seconds"]) == (2, "2013-01-08", None)
    assert sorted(path for path in trained.root.rglob("*")) == before


def test_plan_of_some_runs_with_other_limits(trained: Days) -> None:
    trained.publish(7, 8, 9)

    plan = trained.json("plan", "days", "--runs", "2", "--set", "split.partitions=1")

    assert [run["partitions"] for run in plan["runs"]] == [1, 1]
    assert plan["outcome"] == "more"


def test_plan_sees_failure_to_come(trained: Days) -> None:
    trained.publish(7, 8)
    trained.publish(9, column="y")

    plan = trained.json("plan", "days", code=1)

    assert ([run["partitions"] for run in plan["runs"]], plan["outcome"]) == ([2], "stopped")
    assert "'x'" in plan["reason"]


def test_plan_in_words(trained: Days) -> None:
    trained.publish(7)

    code, out = trained.run("plan", "days")

    assert code == 0
    assert "days/main/main: checkpoint 2, trained up to 2013-01-08T00:00Z" in out
    assert "1 run, 1 partition, 5 rows" in out
    assert "then caught up: " in out
