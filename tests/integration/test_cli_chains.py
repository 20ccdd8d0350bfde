"""What the commands about chains have in common: which chain is meant, secrets, object stores, forks."""

from __future__ import annotations

import json

import pytest

from tests.integration.cli_days import NOW, PYTHON, SAMPLES, YAML, Days
from tests.support.local_object_stores import LocalS3
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest, summary_of
from trainflow.checkpoints.ledger.entries import Author
from trainflow.errors import InputError
from trainflow.identifiers import new_attempt_id
from trainflow.samples.spec import SplitLimits
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.storage.urls import open_store
from trainflow.testing.chains import ChainWriter
from trainflow.workspace.branches import overrides_of_branch
from trainflow.workspace.workspace import open_workspace

PLAIN = """
from trainflow import DAG
from trainflow.operators import EmptyOperator

with DAG("plain"):
    EmptyOperator(task_id="nothing")
"""


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
    assert (line["head_number"], line["lag"], line["problem"]) == (1, None, None)


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
