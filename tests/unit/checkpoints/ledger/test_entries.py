from __future__ import annotations

import json

import msgspec
import pytest

from trainflow.checkpoints.audit import raw_ledger
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import (
    ArtifactFile,
    Artifacts,
    Author,
    Checkpoint,
    CheckpointRef,
    LedgerEntry,
    Prune,
    Rewind,
)
from trainflow.checkpoints.ledger.entry_files import KINDS, decode_entry, encode_entry
from trainflow.errors import InputError, LedgerCorrupt
from trainflow.testing.chains import day, resealed, split_of

CHECKPOINT = Checkpoint(
    sequence=3,
    previous="sha256:ab",
    at=day(5),
    by=Author("run", "attempt", "dag", "host"),
    id="attempt",
    parent_id="other",
    watermark=day(4),
    split=split_of(1, 3, skip=[2]),
    artifacts=Artifacts("a/main/main/artifacts/attempt", [ArtifactFile("m", 1, "sha256:cd")]),
    metrics={"auc": 0.5},
    evaluation={"auc": 0.25},
    not_finite={"loss": "nan"},
    params={"depth": 3, "names": ["x"]},
)
PRUNE = Prune(sequence=4, previous="sha256:ab", at=day(5), by=Author(), checkpoint_ids=["a"], reason="retention")
REWIND = Rewind(sequence=5, previous="sha256:ab", at=day(5), by=Author(), to_checkpoint_id=None)


@pytest.mark.parametrize("entry", [CHECKPOINT, PRUNE, REWIND], ids=["checkpoint", "prune", "rewind"])
def test_entry_survives_its_file(entry: LedgerEntry) -> None:
    found = decode_entry(encode_entry(entry), location="x")

    assert msgspec.structs.replace(found, seal="") == entry
    assert encode_entry(found) == encode_entry(entry)


def test_entry_is_plain_json_that_says_what_it_is() -> None:
    raw = json.loads(encode_entry(CHECKPOINT))

    assert raw["kind"] == "checkpoint"
    assert raw["watermark"] == "2013-01-05T00:00:00Z"
    assert raw["split"]["partitions"][0]["start"] == "2013-01-02T00:00:00Z"


def test_field_later_trainflow_added_is_no_obstacle() -> None:
    raw = json.loads(encode_entry(REWIND)) | {"added_later": 1}

    assert msgspec.structs.replace(decode_entry(resealed(raw), location="x"), seal="") == REWIND


def test_entry_written_before_there_were_seals_is_read() -> None:
    raw = json.loads(encode_entry(REWIND))
    del raw["seal"]

    assert decode_entry(json.dumps(raw).encode(), location="x") == REWIND


def test_name_that_looks_like_seal_is_no_seal() -> None:
    tricky = msgspec.structs.replace(CHECKPOINT, params={"seal": "", "x": '"seal":""'}, metrics={'"seal":"': 1.0})

    assert decode_entry(encode_entry(tricky), location="x").seal


@pytest.mark.parametrize("change", [{"kind": "demotion"}, {"format": 2}, {"format": 2, "kind": "demotion"}])
def test_entry_of_newer_trainflow_says_so(change: dict[str, object]) -> None:
    raw = json.loads(encode_entry(REWIND)) | change

    with pytest.raises(LedgerCorrupt, match="written by a newer trainflow"):
        decode_entry(json.dumps(raw).encode(), location="store/entry")


def test_kind_of_each_entry_is_known_to_audit() -> None:
    assert {*raw_ledger._NEEDED, "checkpoint", "hole filled"} == KINDS


@pytest.mark.parametrize("length", [0, 1, 40, len(encode_entry(CHECKPOINT)) - 3])
def test_torn_entry_says_where_and_what_to_do(length: int) -> None:
    with pytest.raises(LedgerCorrupt, match="torn or was edited") as caught:
        decode_entry(encode_entry(CHECKPOINT)[:length], location="store/7.json")

    assert caught.value.location == "store/7.json"
    assert "store/7.json" in str(caught.value)


@pytest.mark.parametrize("change", [{"sequence": "x"}, {"at": "2013-01-01T00:00:00"}, {"kind": ""}, {"by": None}])
def test_edited_entry_says_so(change: dict[str, object]) -> None:
    raw = json.loads(encode_entry(REWIND)) | change

    with pytest.raises(LedgerCorrupt, match="edited"):
        decode_entry(json.dumps(raw).encode(), location="x")


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "x" * 300])
def test_names_that_cannot_be_folders_are_refused(name: str) -> None:
    for fields in ({"pipeline": name}, {"pipeline": "p", "stage": name}, {"pipeline": "p", "branch": name}):
        with pytest.raises(InputError, match="cannot name a"):
            ChainKey(**fields)


def test_chain_knows_its_paths() -> None:
    chain = ChainKey("flights", "fine", "b1")

    assert chain.entry(12) == "flights/fine/b1/ledger/0000000012.json"
    assert chain.attempt("01k") == "flights/fine/b1/artifacts/01k"
    assert CheckpointRef(chain, "x") == CheckpointRef(ChainKey("flights", "fine", "b1"), "x")
