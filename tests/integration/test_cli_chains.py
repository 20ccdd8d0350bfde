"""The commands about chains and samples over a real store and real Parquet files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.checkpoints.actions.rewind import rewind
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.request import CommitRequest
from trainflow.checkpoints.commit.split_summary import summary_of
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.errors import InputError
from trainflow.identifiers import digest, new_attempt_id
from trainflow.samples.next_split import SplitFound, next_split
from trainflow.samples.spec import Checks, GapPolicy, Samples, SplitLimits
from trainflow.settings.project import Project
from trainflow.storage.local import LocalStore
from trainflow.storage.urls import open_store
from trainflow.testing.chains import ChainWriter, resealed
from trainflow.testing.command_line import CommandLine
from trainflow.testing.local_s3 import LocalS3
from trainflow.workspace.branches import overrides_of_branch
from trainflow.workspace.workspace import open_workspace

START = datetime(2013, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: long before any clock that looks at it
WRITTEN = datetime(2014, 1, 1, tzinfo=UTC)
YAML = """
pipeline: days
samples:
  path: "data/date={start:%Y-%m-%d}/"
  length: 1d
  start: 2013-01-01
  end: 2013-01-15
  checks: {min_rows: 2, columns: {x: int64}}
  gaps: {then: skip}
split: {partitions: 3}
train: {command: ["true"]}
retention: {keep_latest: 2}
"""
PYTHON = """
from datetime import UTC, datetime

from trainflow import DAG
from trainflow.operators import CheckpointOperator, DataCheckerOperator, GapPolicy, Samples, SplitLimits

DAYS = Samples(
    path="data/date={start:%Y-%m-%d}/", length_seconds=86_400, start=datetime(2013, 1, 1, tzinfo=UTC),
    gaps=GapPolicy(then="skip"),
)

for name in ("days", "nights"):
    with DAG(f"{name}_py"):
        head = CheckpointOperator(pipeline=name)
        DataCheckerOperator(samples=DAYS, limits=SplitLimits(partitions=3), checkpoint=head.output)
"""
PLAIN = """
from trainflow import DAG
from trainflow.operators import EmptyOperator

with DAG("plain"):
    EmptyOperator(task_id="nothing")
"""
SAMPLES = Samples(
    path="data/date={start:%Y-%m-%d}/",
    length_seconds=86_400,
    start=START,
    end=START + timedelta(days=14),
    checks=Checks(min_rows=2, columns={"x": "int64"}),
    gaps=GapPolicy(then="skip"),
)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


class Days(CommandLine):
    """A project with a table of days, and a chain that is trained on it three days at a time."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(project, capsys)
        self.store = LocalStore(self.root / "checkpoints")
        self.ledger = Ledger(self.store, ChainKey("days"))

    def folder(self, number: int) -> Path:
        return self.root / f"data/date={day(number):%Y-%m-%d}"

    def publish(self, *numbers: int, rows: int = 5, marker: bool = True, column: str = "x") -> None:
        for number in numbers:
            self.folder(number).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({column: list(range(rows))}), self.folder(number) / "part.parquet")
            if marker:
                (self.folder(number) / "_SUCCESS").touch()
            for file in self.folder(number).iterdir():
                os.utime(file, (WRITTEN.timestamp(), WRITTEN.timestamp()))

    def train(self, runs: int = 1) -> list[Checkpoint]:
        """Commit `runs` checkpoints on what comes next."""
        return [self._train() for _ in range(runs)]

    def _train(self) -> Checkpoint:
        state = self.ledger.state()
        found = next_split(SAMPLES, state.watermark, SplitLimits(partitions=3), NOW, self.root)
        assert isinstance(found, SplitFound)
        attempt = new_attempt_id(NOW)
        folder = output_folder(self.store, self.ledger.chain, attempt, self.root / "scratch")
        (folder / "model.bin").write_bytes(f"weights of {attempt}".encode())
        request = CommitRequest(
            chain=self.ledger.chain,
            parent_id=state.head.id if state.head else None,
            split=summary_of(found.split),
            artifacts=seal(self.store, self.ledger.chain, attempt, folder),
            by=Author(run_id=f"run-{attempt}"),
            metrics={"auc": 0.75},
        )
        return commit(self.store, request, NOW)

    def entry(self, sequence: int) -> Path:
        path = self.store.local_path(self.ledger.chain.entry(sequence))
        assert path is not None
        return path

    def forge(self, sequence: int, change: Callable[[dict[str, Any]], None]) -> None:
        """Change an entry and mend every digest after it, as a person would who wants to hide it."""
        previous: str | None = None
        while self.entry(sequence).exists():
            raw = json.loads(self.entry(sequence).read_bytes())
            if previous is None:
                change(raw)
            else:
                raw["previous"] = previous
            self.entry(sequence).write_bytes(resealed(raw))
            previous = digest(self.entry(sequence).read_bytes())
            sequence += 1


@pytest.fixture
def days(inside: Callable[..., Days]) -> Days:
    return inside(Days, {"pipelines/days.yaml": YAML})


@pytest.fixture
def trained(days: Days) -> Days:
    """Days 0 to 6 are there, without day 4; two checkpoints: [0, 3) and [3, 7) with a hole."""
    days.publish(0, 1, 2, 3, 5, 6)
    days.train(2)
    return days


# -- audit ---------------------------------------------------------------------------------------------------------


def test_audit_of_sound_chain(trained: Days) -> None:
    report = trained.json("audit", "days")

    assert (report["partitions"], report["gaps"], report["duplicates"], report["holes"]) == (6, 0, 0, 1)
    assert report["hole_list"] == [
        {"start": "2013-01-05T00:00:00Z", "end": "2013-01-06T00:00:00Z", "reason": "missing"}
    ]
    assert (report["ok"], report["ledger_ok"], report["artifacts_ok"], report["problems"]) == (True, True, True, [])
    assert (report["head_sequence"], report["watermark"]) == (2, "2013-01-08T00:00:00Z")
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

    assert (report["partitions"], report["head_sequence"], report["watermark"], report["ok"]) == (0, 0, None, True)


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


def test_chain_known_only_to_store_is_found(trained: Days) -> None:
    key = ChainKey("days", "main", "tuned")
    attempt = new_attempt_id(NOW)
    folder = output_folder(trained.store, key, attempt, trained.root / "scratch")
    (folder / "model.bin").write_bytes(b"tuned")
    split = next_split(SAMPLES, None, SplitLimits(partitions=2), NOW, trained.root)
    assert isinstance(split, SplitFound)
    request = CommitRequest(
        chain=key,
        parent_id=None,
        split=summary_of(split.split),
        artifacts=seal(trained.store, key, attempt, folder),
        by=Author(run_id="fork"),
    )
    commit(trained.store, request, NOW)

    report = trained.json("audit", "days", "--all")

    assert [(each["branch"], each["partitions"]) for each in report["chains"]] == [("main", 6), ("tuned", 2)]
    assert trained.json("checkpoints", "list", "days", "--branch", "tuned")[0]["partitions"] == 2


def test_overrides_name_another_chain(trained: Days) -> None:
    report = trained.json("audit", "days", "--set", "branch=tuned")

    assert (report["branch"], report["partitions"]) == ("tuned", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit", "dyas"], "pipelines/days.yaml"),
        (["audit", "days", "--set", "nonsense"], "--set nonsense: write"),
        (["audit", "plain.py"], "trains no chain"),
        (["checkpoints", "show", "both.py"], "choose with --stage, --branch or by DAG id"),
        (["checkpoints", "list", "days", "--stage", "mian"], "has no stage 'mian'; did you mean 'main'?"),
        (["checkpoints", "list", "days", "--branch", "hot"], "has no branch 'hot'; there is: main"),
        (["audit", "broken.py"], "broken.py:1: "),
    ],
)
def test_chain_commands_wrong_input_is_exit_code_two(days: Days, arguments: list[str], said: str) -> None:
    (days.root / "both.py").write_text(PYTHON)
    (days.root / "plain.py").write_text(PLAIN)
    (days.root / "broken.py").write_text("1 / 0\n")

    code, out = days.run(*arguments)

    assert (code, said in out) == (2, True), out


# -- plan ----------------------------------------------------------------------------------------------------------


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
    assert (plan["head_sequence"], plan["watermark"][:10], plan["estimated_seconds"]) == (2, "2013-01-08", None)
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


# -- checkpoints ---------------------------------------------------------------------------------------------------


def test_checkpoints_list_shows_every_checkpoint(trained: Days) -> None:
    first, second = trained.json("checkpoints", "list", "days")

    assert (first["sequence"], first["partitions"], first["head"], first["parent_id"]) == (1, 3, False, None)
    assert (second["sequence"], second["partitions"], second["head"]) == (2, 6, True)
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
    entries = [line["entry"] for line in trained.json("checkpoints", "ledger", "days")][2:]
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

    assert [(each["sequence"], each["on_line"], each["head"]) for each in listed] == [
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


def test_checkpoint_that_is_not_there(trained: Days) -> None:
    code, out = trained.run("checkpoints", "show", "days", "7")

    assert code == 2
    assert "keeps no checkpoint 7: kept are 1, 2" in out


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
    assert [each["sequence"] for each in would["pruned"]] == [1]
    assert len(trained.json("checkpoints", "list", "days")) == 3

    did = trained.json("checkpoints", "prune", "days")
    assert did["pruned"] == would["pruned"]
    assert [each["sequence"] for each in trained.json("checkpoints", "list", "days")] == [2, 3]
    assert trained.json("audit", "days")["partitions"] == 8, "what is pruned was trained"
    assert trained.json("checkpoints", "prune", "days")["pruned"] == []


def test_prune_by_option(trained: Days) -> None:
    (trained.root / "pipelines/both.py").write_text(PYTHON)

    code, out = trained.run("checkpoints", "prune", "days_py")
    assert (code, "--keep-latest" in out) == (2, True), "no retention is no wish to delete everything"
    pruned = trained.json("checkpoints", "prune", "days_py", "--keep-latest", "1")
    assert [each["sequence"] for each in pruned["pruned"]] == [1]


def test_ledger_is_printed_though_it_is_corrupt(trained: Days) -> None:
    code, out = trained.run("checkpoints", "ledger", "days")
    assert (code, out.count("\n"), out.count("checkpoint")) == (0, 2, 2)
    trained.entry(1).write_bytes(b"{")

    lines = trained.json("checkpoints", "ledger", "days", code=1)

    assert [(line["sequence"], line["entry"] is None) for line in lines] == [(1, True), (2, False)]
    assert "torn" in lines[0]["problem"]


# -- samples -------------------------------------------------------------------------------------------------------


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
    assert report["trained_by"]["sequence"] == 2
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
        ("yesterday", "no date or time"),
    ],
)
def test_partition_that_cannot_be(days: Days, partition: str, said: str) -> None:
    code, out = days.run("samples", "show", "days", partition)

    assert (code, said in out) == (2, True), out


# -- secrets -------------------------------------------------------------------------------------------------------


def test_secrets_of_pipeline_are_used_and_not_shown(trained: Days) -> None:
    options = "storage_options: {secret: hunter2}"
    text = YAML.replace("length: 1d", f"length: 1d\n  {options}").replace(
        "split:", f"store: {{url: checkpoints, {options}}}\nsplit:"
    )
    (trained.root / "pipelines/secret.yaml").write_text(text)

    for command in (["audit"], ["plan"], ["checkpoints", "list"], ["samples", "list"]):
        code, out = trained.run(*command, "secret", "--json")
        assert (code, "hunter2" in out) == (0, False), out


def test_chain_on_object_store_that_only_file_can_reach(
    days: Days, s3: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    url = f"s3://{s3.make_bucket()}/store"
    store = json.dumps({"url": url, "storage_options": s3.storage_options})
    (days.root / "pipelines/remote.yaml").write_text(YAML.replace("days", "remote") + f"store: {store}\n")
    writer = ChainWriter(open_store(url, storage_options=s3.storage_options), days.root / "scratch", ChainKey("remote"))
    writer.commit(days=3)

    assert days.json("audit", "remote")["partitions"] == 3
    assert days.json("checkpoints", "verify", "remote", "--all")["ok"]
    [line] = days.json("status", "remote")["pipelines"]
    # what is ready beyond the head is known once an engine has read the file
    assert (line["head_sequence"], line["lag"], line["problem"]) == (1, None, None)


def test_rewind_to_pruned_checkpoint_says_so(trained: Days) -> None:
    trained.json("checkpoints", "prune", "days", "--keep-latest", "1")

    code, said = trained.run("checkpoints", "rewind", "days", "--before", "2013-01-05", "--dry-run")

    assert code == 0
    assert (
        "the checkpoints up to 2013-01-04T00:00Z were pruned, none of them can be gone on from: it begins anew" in said
    )


def test_rewind_to_further_back_than_asked_says_what_was_pruned(days: Days) -> None:
    days.publish(*range(9))
    days.train(3)
    days.json("checkpoints", "promote", "days", "1", "--alias", "champion")
    days.json("checkpoints", "prune", "days", "--keep-latest", "1")

    code, said = days.run("checkpoints", "rewind", "days", "--before", "2013-01-08")

    assert code == 0, said
    assert "the checkpoints from 2013-01-04T00:00Z up to 2013-01-07T00:00Z were pruned" in said
    assert "is rewound from checkpoint 3 to checkpoint 1, trained up to 2013-01-04T00:00Z" in said


def test_fork_at_end_of_table_says_nothing_is_left(days: Days) -> None:
    days.publish(*range(14))
    days.train(5)

    code, said = days.run("checkpoints", "fork", "days", "--branch", "hot")
    assert (code, "has nothing to train: the table ends there. '--before DATE'" in said) == (0, True), said

    code, said = days.run("checkpoints", "fork", "days", "--branch", "cold", "--before", "2013-01-08")
    assert (code, "has nothing to train" in said) == (0, False), said


def test_branch_that_file_trains_needs_no_fork(days: Days) -> None:
    path = days.root / "pipelines/days.yaml"
    path.write_text(YAML + "branch: hot\n")

    assert overrides_of_branch(open_workspace(path), path, "hot", {}) == {"branch": "hot"}
    with pytest.raises(InputError, match="has no branch 'cold' yet"):
        overrides_of_branch(open_workspace(path), path, "cold", {})
