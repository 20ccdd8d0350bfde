"""`trainflow checkpoints` over a real store."""

from __future__ import annotations

import pytest

from tests.integration.cli_days import NOW, PYTHON, Days
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.cli.commands import checkpoints


def test_checkpoints_list_shows_every_checkpoint(trained: Days) -> None:
    first, second = trained.json("checkpoints", "list", "days")

    assert (first["number"], first["partitions"], first["head"], first["parent_id"]) == (1, 3, False, None)
    assert (second["number"], second["partitions"], second["head"]) == (2, 6, True)
    assert second["metrics"] == {"auc": 0.75}
    code, out = trained.run("checkpoints", "list", "days")
    assert (code, out.count("\n")) == (0, 3)


def test_person_promotes_checkpoint(trained: Days) -> None:
    first, second = trained.json("checkpoints", "list", "days")
    for which in ("1", "head", "1"):
        told = trained.json("checkpoints", "promote", "days", which, "--alias", "champion", "--reason", "a good one")
        assert (told["alias"], told["promoted"]) == ("champion", True)
    assert trained.json("checkpoints", "promote", "days", "1", "--alias", "champion")["promoted"] is False

    assert [line["aliases"] for line in trained.json("checkpoints", "list", "days")] == [["champion"], []]
    assert "champion" in trained.run("checkpoints", "list", "days")[1]
    entries = [line["content"] for line in trained.json("checkpoints", "ledger", "days")][2:]
    assert [entry["checkpoint_id"] for entry in entries] == [first["id"], second["id"], first["id"]]
    assert all("@" in entry["by"]["person"] for entry in entries)
    # it needs no database, and makes none
    assert not (trained.root / ".trainflow").exists()


def test_alias_that_cannot_be(trained: Days) -> None:
    code, said = trained.run("checkpoints", "promote", "days", "1", "--alias", "latest")
    assert (code, "cannot be an alias" in said) == (2, True)


def test_rewound_checkpoint_is_off_line(trained: Days) -> None:
    first, second = trained.json("checkpoints", "list", "days")
    rewind(trained.ledger, first["id"], expected_head=second["id"], by=Author(), now=NOW)

    listed = trained.json("checkpoints", "list", "days")

    assert [(each["number"], each["on_line"], each["head"]) for each in listed] == [
        (1, True, True),
        (2, False, False),
    ]


def test_checkpoints_show_by_number_id_and_head(trained: Days) -> None:
    second = trained.json("checkpoints", "show", "days")

    assert trained.json("checkpoints", "show", "days", "2") == second
    assert trained.json("checkpoints", "show", "days", second["id"]) == second
    assert trained.json("checkpoints", "show", "days", "1")["id"] == second["parent_id"]
    assert second["uri"].endswith(f"artifacts/{second['id']}")
    code, out = trained.run("checkpoints", "show", "days")
    assert code == 0
    assert "model.bin" in out


def test_checkpoints_show_of_many_files_counts_the_rest(trained: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_FILES_SHOWN", 0)
    (file,) = trained.json("checkpoints", "show", "days")["artifacts"]["files"]
    out = trained.run("checkpoints", "show", "days")[1]
    assert file["sha256"][:19] not in out
    assert f"… and 1 file more, {file['size']} B in all (--json shows all)" in out


def test_checkpoints_export_copies_all_files_to_an_empty_folder(trained: Days) -> None:
    second = trained.json("checkpoints", "show", "days")

    done = trained.json("checkpoints", "export", "days", "--to", str(trained.root / "out"))

    assert (done["number"], done["id"], done["files"]) == (2, second["id"], len(second["artifacts"]["files"]))
    committed = trained.root / f"checkpoints/days/main/main/artifacts/{second['id']}"
    for file in second["artifacts"]["files"]:
        assert (trained.root / "out" / file["path"]).read_bytes() == (committed / file["path"]).read_bytes()
    code, out = trained.run("checkpoints", "export", "days", "1", "--to", str(trained.root / "out"))
    assert (code, "is not empty" in out) == (2, True)


def test_checkpoint_that_is_not_there(trained: Days) -> None:
    code, out = trained.run("checkpoints", "show", "days", "7")

    assert code == 2
    assert "never had a checkpoint 7: its newest is 2" in out


def test_checkpoints_verify_finds_damaged_files(trained: Days) -> None:
    first = trained.json("checkpoints", "list", "days")[0]
    broken = trained.root / f"checkpoints/days/main/main/artifacts/{first['id']}/model.bin"
    broken.write_bytes(b"x")

    assert trained.json("checkpoints", "verify", "days")["ok"], "the head is intact"
    found = trained.json("checkpoints", "verify", "days", "--all", code=1)
    assert [each["ok"] for each in found["checkpoints"]] == [False, True]
    assert "model.bin" in found["checkpoints"][0]["problems"][0]
    code, out = trained.run("checkpoints", "verify", "days", "1")
    assert (code, "BROKEN" in out) == (1, True)


def test_prune_by_pipelines_retention(trained: Days) -> None:
    trained.publish(7, 8)
    trained.train()

    would = trained.json("checkpoints", "prune", "days", "--dry-run")
    assert [each["number"] for each in would["pruned"]] == [1]
    assert len(trained.json("checkpoints", "list", "days")) == 3

    did = trained.json("checkpoints", "prune", "days")
    assert did["pruned"] == would["pruned"]
    assert [each["number"] for each in trained.json("checkpoints", "list", "days")] == [2, 3]
    assert trained.json("audit", "days")["partitions"] == 8, "what is pruned was trained"
    assert trained.json("checkpoints", "prune", "days")["pruned"] == []


def test_prune_by_option(trained: Days) -> None:
    (trained.root / "pipelines/both.py").write_text(PYTHON)

    code, out = trained.run("checkpoints", "prune", "days_py")
    assert (code, "--keep-latest" in out) == (2, True), "no retention is no wish to delete everything"
    pruned = trained.json("checkpoints", "prune", "days_py", "--keep-latest", "1")
    assert [each["number"] for each in pruned["pruned"]] == [1]


def test_ledger_is_printed_though_it_is_corrupt(trained: Days) -> None:
    code, out = trained.run("checkpoints", "ledger", "days")
    assert (code, out.count("\n"), out.count("checkpoint")) == (0, 2, 2)
    trained.entry(1).write_bytes(b"{")

    lines = trained.json("checkpoints", "ledger", "days", code=1)

    assert [(line["entry"], line["content"] is None) for line in lines] == [(1, True), (2, False)]
    assert "torn" in lines[0]["problem"]
