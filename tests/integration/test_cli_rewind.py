"""`checkpoints rewind` over a real store."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.integration.cli_history import History
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.testing.chains import ChainWriter
from trainflow.workspace.workspace import open_workspace

#: nothing of the table is on this disk
GONE = (
    "2 partitions of that are not there any more, the first is 2013-01-03T00:00Z: training forward again stops there, "
    "or steps over it, as samples.gaps says\n"
)


def test_rewind_to_number(history: History) -> None:
    made = history.main.commit_many(4)

    said = history.json("checkpoints", "rewind", "flights", "--to", "2", "--dry-run")
    assert said == {
        "rewound": [
            {
                "chain": "flights/main/main",
                "from": 4,
                "from_id": made[3].id,
                "to": 2,
                "to_id": made[1].id,
                "watermark": "2013-01-03T00:00:00Z",
                "undone": 2,
                "checkpoints": [3, 4],
                "pruned_up_to": None,
                "aliases": {},
                # nothing of the table is on this disk
                "missing": ["2013-01-03T00:00:00Z", "2013-01-04T00:00:00Z"],
            }
        ],
        "dry_run": True,
    }
    assert history.ledger.state().head == made[3]
    code, out = history.run("checkpoints", "rewind", "flights", "--to", "2", "--reason", "the table was wrong")

    assert (code, out) == (
        0,
        "flights/main/main is rewound from checkpoint 4 to checkpoint 2, trained up to 2013-01-03T00:00Z: "
        "2 checkpoints undone: 4, 3\n" + GONE,
    )
    assert history.ledger.state().head == made[1]
    code, out = history.run("checkpoints", "ledger", "flights")
    assert "rewind by person to checkpoint 2 (the table was wrong)" in out


def test_rewind_says_what_becomes_of_aliases_and_queues_it_for_mlflow(history: History) -> None:
    made = history.main.commit_many(4)
    (history.root / "configs/trainflow.toml").write_text("[tracking]\nenabled = true\n")
    assert history.run("db", "migrate")[0] == 0
    for number, alias in [("1", "champion"), ("3", "champion"), ("4", "newest")]:
        history.json("checkpoints", "promote", "flights", number, "--alias", alias)

    said = history.json("checkpoints", "rewind", "flights", "--to", "2", "--dry-run")
    assert said["rewound"][0]["aliases"] == {"champion": 1, "newest": None}
    code, out = history.run("checkpoints", "rewind", "flights", "--to", "2")

    assert code == 0
    assert out.splitlines()[1:] == [
        "'champion' goes back to checkpoint 1",
        "'newest' names no checkpoint any more",
        *GONE.splitlines(),
    ]
    assert history.ledger.state().promoted == {"champion": made[0].id}
    with open_workspace() as workspace, workspace.database.reading() as connection:
        rows = OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, datetime.now(UTC))
    moved = [row.payload["moved"] for row in rows if row.kind == "demoted"]
    assert [(each["alias"], each["lost"], (each.get("now") or {}).get("number")) for each in moved] == [
        ("champion", [made[2].id], 1),
        ("newest", [made[3].id], None),
    ]


@pytest.mark.parametrize(
    ("before", "left"), [("2013-01-03", 2), ("2013-01-03T23:59", 2), ("2013-01-04", 3), ("2013-01-01", 0)]
)
def test_rewind_to_before_date(history: History, before: str, left: int) -> None:
    history.main.commit_many(4)

    history.json("checkpoints", "rewind", "flights", "--before", before)

    assert len(history.ledger.line()) == left


def test_rewind_to_where_the_chain_is_already_records_nothing(history: History) -> None:
    history.main.commit_many(2)
    before = history.ledger.state()

    for words in (["--to", "2"], ["--before", "2013-06-01"], ["--to", "2", "--dry-run"]):
        code, out = history.run("checkpoints", "rewind", "flights", *words)
        assert (code, out) == (
            0,
            "flights/main/main is at checkpoint 2 already, trained up to 2013-01-03T00:00Z: no checkpoint is undone\n",
        )
    assert history.ledger.state() == before


def test_checkpoint_that_a_rewind_left_behind_is_not_promoted_and_may_be_forked(history: History) -> None:
    history.main.commit_many(3)
    history.run("checkpoints", "rewind", "flights", "--to", "1")

    for more in ([], ["--dry-run"]):
        code, out = history.run("checkpoints", "promote", "flights", "3", "--alias", "champion", *more)
        assert code == 2
        assert "checkpoint 3 of flights/main/main was left behind by a rewind" in out
        assert "'trainflow checkpoints fork flights --from 3 --branch NAME'" in out
    assert history.run("checkpoints", "fork", "flights", "--from", "3", "--branch", "kept")[0] == 0


def test_rewind_past_start_of_another_stage_is_refused_unless_cascading(history: History) -> None:
    base = history.main.commit_many(3)
    fine = ChainWriter(history.store, history.root / "fine", ChainKey("flights", "fine"))
    fine.commit(origin=CheckpointRef(history.main.chain, base[2].id))

    code, said = history.run("checkpoints", "rewind", "flights", "--to", "1")
    assert (code, "flights/fine/main (checkpoint 1) went on from checkpoints of flights/main/main" in said) == (2, True)
    assert history.ledger.state().sequence == 3

    found = history.json("checkpoints", "rewind", "flights", "--to", "1", "--cascade")

    assert [(each["chain"], each["to"]) for each in found["rewound"]] == [
        ("flights/fine/main", 0),
        ("flights/main/main", 1),
    ]
    assert Ledger(history.store, fine.chain).state().head is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say where to"),
        (["--to", "1", "--before", "2013-01-01"], "say where to"),
        (["--before", "soon"], "--before soon:"),
        (["--to", "9"], "never had a checkpoint 9: its newest is 2"),
    ],
)
def test_rewind_to_nowhere_is_wrong_input(history: History, arguments: list[str], said: str) -> None:
    history.main.commit_many(2)

    code, out = history.run("checkpoints", "rewind", "flights", *arguments)

    assert (code, said in out) == (2, True), out
    assert history.ledger.state().sequence == 2


def test_rewind_waits_for_runs_that_have_not_ended(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    history.main.commit_many(2)
    asked: list[str] = []

    def active(_workspace: object, dag_id: str) -> list[str]:
        asked.append(dag_id)
        return ["manual__1"]

    monkeypatch.setattr("trainflow.workspace.workspace.Workspace.active_runs", active)

    code, out = history.run("checkpoints", "rewind", "flights", "--to", "1")

    assert (code, asked, history.ledger.state().sequence) == (2, ["flights"], 2)
    assert "run manual__1 of flights has not ended" in out
    assert "trainflow runs cancel flights manual__1" in out


def test_rewind_of_many_checkpoints_names_twenty_and_counts_the_rest(history: History) -> None:
    history.main.commit_many(23)

    out = history.run("checkpoints", "rewind", "flights", "--to", "beginning", "--dry-run")[1]

    newest = ", ".join(str(number) for number in range(23, 3, -1))
    assert f"23 checkpoints undone: {newest} and 3 more\n" in out
