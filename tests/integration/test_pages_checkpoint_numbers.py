"""The pages and the report call checkpoints by their numbers, and read well about one and about many."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rest import RestApi, rest_api
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, day, split_of

CHAIN = "/chains/flights/main/main"
ME = Author(person="ada")


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[RestApi]:
    """Checkpoints 1 to 5, of which all but 3 and the head were pruned, one after the other."""
    with rest_api(tmp_path) as served:
        store = LocalStore(tmp_path / "checkpoints")
        ledger = Ledger(store, ChainKey("flights"))
        promote(ledger, ledger.checkpoint().id, "champion", by=ME, now=day(9))
        writer = ChainWriter(store, tmp_path / "more", ChainKey("flights"))
        writer.runs = 3
        for count in (3, 2):
            writer.commit(split=split_of(9 + 3 - count))
            prune(writer.ledger, [KeepLatest(count)], by=Author(run_id="r"), now=day(9), reason="retention")
        prune(writer.ledger, [KeepLatest(1)], by=Author(run_id="r"), now=day(9), reason="retention")
        yield served


def page(rest: RestApi, path: str) -> str:
    answer = rest.api.ask("GET", path, Accept="text/html", Sec_Fetch_Mode="navigate")
    assert answer.status == 200, answer
    return " ".join(re.sub(r"<[^>]*>", " ", bytes(answer.body).decode()).split())


def test_pages_call_head_by_its_number(rest: RestApi) -> None:
    assert "Checkpoint 5 of 5 · flights/main/main" in page(rest, f"{CHAIN}/checkpoints/5")
    assert "checkpoint 5" in page(rest, CHAIN)
    assert "promoted checkpoint 3 to champion" in page(rest, CHAIN)
    assert "Checkpoint 4 of 5" in page(rest, f"{CHAIN}/checkpoints/4")


def test_prunes_that_follow_each_other_are_one_line(rest: RestApi) -> None:
    said = page(rest, CHAIN)
    assert said.count("deleted the files of") == 1
    assert "deleted the files of 3 checkpoints (1, 2, 4): retention" in said


def test_one_partition_is_no_partitions(rest: RestApi) -> None:
    said = page(rest, f"{CHAIN}/checkpoints/5")
    assert "1 partition " in said
    assert "1 partitions" not in said
    assert "trained: 10 trained" not in page(rest, CHAIN)
