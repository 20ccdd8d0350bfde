"""`trainflow audit` over a real store and real Parquet files."""

from __future__ import annotations

import json

from tests.integration.cli_days import PYTHON, Days


def test_audit_of_sound_chain(trained: Days) -> None:
    report = trained.json("audit", "days")

    assert (report["partitions"], report["gaps"], report["duplicates"], report["holes"]) == (6, 0, 0, 1)
    assert report["hole_list"] == [
        {"start": "2013-01-05T00:00:00Z", "end": "2013-01-06T00:00:00Z", "reason": "missing"}
    ]
    assert (report["ok"], report["ledger_ok"], report["artifacts_ok"], report["problems"]) == (True, True, True, [])
    assert (report["head_number"], report["watermark"]) == (2, "2013-01-08T00:00:00Z")
    assert {"pipeline": "days", "stage": "main", "branch": "main"}.items() <= report.items()
    assert len(report["chains"]) == 1
    assert report["chains"][0].items() <= report.items()


def test_audit_in_words(trained: Days) -> None:
    code, out = trained.run("audit", "pipelines/days.yaml")

    assert code == 0
    assert "6 partitions, up to 2013-01-08T00:00Z" in out
    assert out.endswith("ok\n")


def test_empty_ledger_is_sound(days: Days) -> None:
    report = days.json("audit", "days")

    assert (report["partitions"], report["head_number"], report["watermark"], report["ok"]) == (0, 0, None, True)


def test_audit_touches_neither_database_nor_home(trained: Days) -> None:
    trained.run("audit", "days")

    assert not (trained.root / ".trainflow").exists()


def test_corrupt_entry_is_found(trained: Days) -> None:
    trained.entry(1).write_bytes(trained.entry(1).read_bytes()[:50])

    report = trained.json("audit", "days", code=1)

    assert (report["ok"], report["ledger_ok"], report["artifacts_ok"]) == (False, False, True)
    assert any("0000000001.json is torn" in problem for problem in report["problems"])


def test_audit_corrupt_artifact_is_found_unless_verify_is_off(trained: Days) -> None:
    artifact = next((trained.root / "checkpoints/days/main/main/artifacts").glob("*/model.bin"))
    artifact.write_bytes(b"other weights")

    report = trained.json("audit", "days", code=1)

    assert (report["ledger_ok"], report["artifacts_ok"]) == (True, False)
    assert "model.bin" in report["problems"][0]
    assert trained.json("audit", "days", "--no-files")["ok"]


def test_partition_that_was_left_out_is_found(trained: Days) -> None:
    trained.forge(1, lambda raw: raw["split"]["partitions"].pop(1))

    report = trained.json("audit", "days", code=1)

    assert (report["partitions"], report["gaps"], report["duplicates"]) == (5, 1, 0)
    assert report["gap_list"][0]["start"] == "2013-01-02T00:00:00Z"


def test_partition_that_was_trained_twice_is_found(trained: Days) -> None:
    first = json.loads(trained.entry(1).read_bytes())["split"]["partitions"][2]
    trained.forge(2, lambda raw: raw["split"]["partitions"].insert(0, first))

    report = trained.json("audit", "days", code=1)

    assert (report["partitions"], report["gaps"], report["duplicates"]) == (7, 0, 1)
    assert report["duplicate_list"][0]["start"] == "2013-01-03T00:00:00Z"


def test_audit_republished_partition_is_noticed_but_no_problem(trained: Days) -> None:
    trained.publish(1, rows=9)
    trained.publish(4)
    for file in trained.folder(2).iterdir():
        file.unlink()

    report = trained.json("audit", "days")

    assert report["republished"] == ["2013-01-02T00:00:00Z"]
    assert [notice.split(" ")[:2] for notice in report["notices"]] == [
        ["partition", "2013-01-02T00:00Z"],
        ["1", "partition"],
        ["1", "partition"],
    ]
    assert "of the holes has arrived, the first is 2013-01-05T00:00Z" in report["notices"][1]
    assert report["arrived"] == ["2013-01-05T00:00:00Z"]
    assert trained.json("audit", "days", "--no-samples")["notices"] == []


def test_audit_of_python_file_covers_every_chain(trained: Days) -> None:
    (trained.root / "pipelines/both.py").write_text(PYTHON)

    report = trained.json("audit", "both")

    assert [(each["pipeline"], each["partitions"]) for each in report["chains"]] == [("days", 6), ("nights", 0)]
    assert "partitions" not in report
    assert report["pipeline"] == "pipelines/both.py"
    assert trained.json("audit", "days_py")["partitions"] == 6, "a DAG's id is a name too"
