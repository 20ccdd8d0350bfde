"""The history of a chain, read on."""

from __future__ import annotations

from pathlib import Path

from trainflow.checkpoints.ledger.entries import Author, Promotion, Skip
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.insight.chains.history import ChainHistory
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, append_many, day


def test_history_read_on_is_history_read_at_once(tmp_path: Path) -> None:
    ledger = ChainWriter(LocalStore(tmp_path), tmp_path / "scratch").ledger
    history, at_once = ChainHistory(), ChainHistory()
    append_many(ledger, 5)
    history.read(ledger)
    fourth = history.checkpoints[3]
    ledger.append(lambda state: Promotion(**state.header(Author(), day(40)), checkpoint_id=fourth.id, alias="champion"))
    ledger.append(
        lambda state: Skip(
            **state.header(Author(person="ada"), day(41)),
            parent_id=state.head.id if state.head else None,
            start=day(5),
            end=day(6),
            reason="strike",
        )
    )
    history.read(ledger)
    rewind(
        ledger, history.checkpoints[1].id, expected_head=ledger.checkpoint().id, by=Author(), now=day(42), reason="bad"
    )
    history.read(ledger)
    at_once.read(ledger)
    assert history.checkpoints == at_once.checkpoints
    assert history.events == at_once.events
    assert [each.on_line for each in history.checkpoints] == [True, True, False, False, False]
    assert history.aliases == {}
    assert [each.sentence for each in history.events] == [
        "promoted checkpoint 4 to champion",
        "left out 2013-01-06T00:00Z to 2013-01-07T00:00Z: strike",
        "rewound to checkpoint 2: bad",
    ]
    assert history.metric_names == ["auc", "loss"]
