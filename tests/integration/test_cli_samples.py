"""`trainflow samples` over real Parquet files."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.cli_days import Days


def test_samples_list_puts_ledger_and_storage_together(trained: Days) -> None:
    trained.publish(7)
    trained.publish(8, marker=False)

    lines = trained.json("samples", "list", "days")

    states = [line["state"] for line in lines]
    assert states == ["trained"] * 4 + ["hole"] + ["trained"] * 2 + ["ready", "not_ready"] + ["missing"] * 5
    assert (lines[0]["checkpoint"], lines[6]["checkpoint"], lines[7]["checkpoint"]) == (1, 2, None)
    assert "_SUCCESS" in lines[8]["reason"]


def test_samples_list_in_ranges_for_people(trained: Days) -> None:
    code, out = trained.run("samples", "list", "days", "--to", "2013-01-10")

    lines = [line.split()[2:4] for line in out.splitlines()[1:]]
    assert code == 0
    assert lines == [["4", "trained"], ["1", "hole"], ["2", "trained"], ["2", "missing"]]


def test_samples_list_of_stretch(trained: Days) -> None:
    lines = trained.json("samples", "list", "days", "--from", "2013-01-04", "--to", "2013-01-06T00:00")

    assert [line["state"] for line in lines] == ["trained", "hole"]


def test_trained_partition_whose_files_are_gone_is_still_trained(trained: Days) -> None:
    for file in trained.folder(0).iterdir():
        file.unlink()

    line = trained.json("samples", "list", "days", "--to", "2013-01-02")[0]

    assert (line["state"], line["reason"]) == ("trained", "now missing")


@pytest.mark.parametrize(
    ("publish", "ok", "finding"),
    [
        ({}, True, "ready and good"),
        ({"rows": 1}, False, "at least 2 rows"),
        ({"column": "y"}, False, "column 'x'"),
        ({"marker": False}, False, "_SUCCESS"),
        (None, False, "missing"),
    ],
)
def test_samples_check_reports_failed_checks(
    days: Days, publish: dict[str, Any] | None, ok: bool, finding: str
) -> None:
    if publish is not None:
        days.publish(3, **publish)

    code, out = days.run("samples", "check", "days", "2013-01-04")

    assert (code, finding in out) == (0 if ok else 1, True), out
    assert days.json("samples", "check", "days", "2013-01-04", code=code)["ok"] is ok


def test_torn_file_is_finding(days: Days) -> None:
    days.publish(3)
    (days.folder(3) / "part.parquet").write_bytes(b"PAR1 and then nothing")

    report = days.json("samples", "check", "days", "2013-01-04", code=1)

    assert report["state"] == "unreadable"
    assert "part.parquet" in report["problems"][0]


def test_samples_show_names_files_of_partition(trained: Days) -> None:
    report = trained.json("samples", "show", "days", "2013-01-04")

    assert (report["state"], report["rows"], len(report["files"]), report["republished"]) == ("ready", 5, 1, False)
    assert report["trained_by"]["number"] == 2
    assert report["trained_by"]["fingerprint"] == report["fingerprint"]
    trained.publish(3, rows=1)
    again = trained.json("samples", "show", "days", "2013-01-04")
    assert (again["republished"], again["rows"], again["ok"]) == (True, 1, False)
    code, out = trained.run("samples", "show", "days", "2013-01-04")
    assert (code, "published again since" in out) == (0, True)


@pytest.mark.parametrize(
    ("partition", "said"),
    [
        ("2013-01-04T05:00", "inside of 2013-01-04T00:00Z"),
        ("2012-12-31", "they start at 2013-01-01T00:00Z"),
        ("2013-01-15", "end at 2013-01-15T00:00Z"),
        ("yesterday", "is not a date; write a date (2013-01-01)"),
    ],
)
def test_partition_that_cannot_be(days: Days, partition: str, said: str) -> None:
    code, out = days.run("samples", "show", "days", partition)

    assert (code, said in out) == (2, True), out
