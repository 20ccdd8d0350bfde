"""`checkpoints compare` and `audit --lineage` over forked chains."""

from __future__ import annotations

import pytest

from tests.integration.cli_history import History, forked


def test_compare_two_branches(history: History) -> None:
    forked(history)

    said = history.json("checkpoints", "compare", "flights", "main", "deep")

    assert (said["a"]["number"], said["b"]["number"], said["measured"]) == (4, 3, "evaluation")
    assert said["scores"][-1] == {"watermark": "2013-01-06T00:00:00Z", "a": None, "b": {"auc": 0.9}}
    assert (said["common"], len(said["only_a"]), len(said["only_b"]), said["changed"]) == (3, 1, 1, [])
    assert said["only_b"][0]["chain"] == "flights/main/deep"
    code, out = history.run("checkpoints", "compare", "flights", "main", "deep")
    assert code == 0
    shown = ("scores on samples not seen before", "2013-01-06T00:00Z  B  0.9", "3 partitions in common")
    assert all(words in out for words in (*shown, "only A: 1 partition"))


def test_compare_of_branches_leaves_out_rows_before_they_parted(history: History) -> None:
    forked(history)

    said = history.json("checkpoints", "compare", "flights", "main", "deep")
    code, out = history.run("checkpoints", "compare", "flights", "main", "deep")

    assert said["parted_at"] == "2013-01-03T00:00:00Z"
    earlier = [score["watermark"] for score in said["scores"] if score["watermark"] <= said["parted_at"]]
    table = out.partition("… and")[0]
    assert (code, len(earlier)) == (0, 2)
    assert not any(f"{watermark[:10]} " in table for watermark in earlier)
    assert "2013-01-04T00:00Z" in table
    assert "… and 2 rows up to 2013-01-03T00:00Z, where they part (--json shows all)" in out


def test_compare_of_checkpoint_with_later_one_of_its_line_shows_both_scores(history: History) -> None:
    forked(history)

    said = history.json("checkpoints", "compare", "flights", "2", "4")
    code, out = history.run("checkpoints", "compare", "flights", "2", "4")

    at = next(score["watermark"] for score in said["scores"] if score["a"] and score["b"])
    assert (code, at[:10] in out) == (0, True)


def test_compare_branch_that_has_trained_nothing_yet(history: History) -> None:
    made = [history.main.commit(evaluation={"auc": 0.5 + number / 10}) for number in range(4)]
    history.json("checkpoints", "fork", "flights", "--from", "2", "--branch", "deep")

    said = history.json("checkpoints", "compare", "flights", "main", "deep")

    assert said["b"] == {
        "chain": "flights/main/deep",
        "id": made[1].id,
        "number": 2,
        "watermark": "2013-01-03T00:00:00Z",
        "partitions": 2,
        "forked_from": "flights/main/main",
    }
    assert (said["a"]["forked_from"], said["common"], len(said["only_a"]), said["only_b"]) == (None, 2, 2, [])
    code, out = history.run("checkpoints", "compare", "flights", "deep", "main")
    shown = "A  flights/main/deep  no checkpoint of its own yet: checkpoint 2 of flights/main/main, from which it was"
    assert (code, shown in out) == (0, True), out


@pytest.mark.parametrize(("a", "b"), [("1", "3"), ("main@1", "main@3")])
def test_compare_two_checkpoints(history: History, a: str, b: str) -> None:
    forked(history)

    said = history.json("checkpoints", "compare", "flights", a, b)

    assert (said["a"]["partitions"], said["b"]["partitions"], said["common"]) == (1, 3, 1)
    code, out = history.run("checkpoints", "compare", "flights", "main", "missing")
    assert (code, "never had a checkpoint missing" in out) == (2, True)


def test_lineage_follows_weights_to_origin_of_branch(history: History) -> None:
    branch = forked(history)

    said = history.json("audit", "flights", "--branch", "deep", "--lineage", "head")

    assert (said["id"], said["rows"], said["began_with"]) == (branch.ledger.checkpoint().id, 40, None)
    assert [(each["start"][:10], each["chain"], each["run_id"]) for each in said["partitions"]] == [
        ("2013-01-01", "flights/main/main", "run-1"),
        ("2013-01-02", "flights/main/main", "run-2"),
        ("2013-01-03", "flights/main/deep", "run-1"),
        ("2013-01-05", "flights/main/deep", "run-1"),
    ]
    code, out = history.run("audit", "flights", "--lineage", "3")
    assert (code, "3 partitions, 30 rows" in out) == (0, True)
