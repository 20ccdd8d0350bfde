from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.checkpoints.audit import audit
from trainflow.checkpoints.entries import Author
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.local_store import LocalStore
from trainflow.checkpoints.prune import prune
from trainflow.checkpoints.retention import KeepLatest
from trainflow.checkpoints.rewind import rewind
from trainflow.checkpoints.timeline import Interval
from trainflow.identifiers import digest
from trainflow.samples.spec import Samples
from trainflow.testing.chains import START, ChainWriter, day, fingerprint_of

SAMPLES = Samples(path="data/{start:%Y%m%d}/", length_seconds=86_400, start=START)
NOW = day(100)


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    """[0, 2), [2, 5) with day 3 a hole, [5, 6)."""
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    writer.commit(days=2)
    writer.commit(days=3, skip=[1])
    writer.commit()
    return writer


def entry_path(writer: ChainWriter, sequence: int) -> Path:
    path = writer.store.local_path(writer.chain.entry(sequence))
    assert path is not None
    return path


def forge(writer: ChainWriter, sequence: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an entry and mend the digests of all after it: what only the audit's own reckoning can find."""
    previous: str | None = None
    for number in range(sequence, 1000):
        path = entry_path(writer, number)
        if not path.exists():
            return
        raw = json.loads(path.read_bytes())
        if previous is None:
            change(raw)
        else:
            raw["previous"] = previous
        path.write_bytes(json.dumps(raw).encode())
        previous = digest(path.read_bytes())


def test_a_sound_chain_is_sound(writer: ChainWriter) -> None:
    report = audit(Ledger(writer.store, writer.chain), SAMPLES, None, NOW)

    assert report.ok
    assert (report.partitions, report.gaps, report.duplicates, report.problems) == (5, [], [], [])
    assert report.holes == [Interval(day(3), day(4), "missing")]
    assert (report.head_sequence, report.watermark, report.entries, report.checkpoints) == (3, day(6), 3, 3)
    assert report.ledger_ok
    assert report.artifacts_ok
    assert json.loads(msgspec.json.encode(report))["watermark"] == "2013-01-07T00:00:00Z"


def test_a_chain_that_does_not_exist_yet_is_sound_and_empty(tmp_path: Path) -> None:
    report = audit(ChainWriter(LocalStore(tmp_path), tmp_path).ledger, SAMPLES, None, NOW)

    assert (report.ok, report.partitions, report.head_sequence, report.watermark) == (True, 0, 0, None)


def test_rewound_work_is_not_on_the_line_and_pruned_files_are_not_missed(writer: ChainWriter) -> None:
    line = [summary.id for summary in writer.ledger.state().line]
    rewind(writer.ledger, line[0], expected_head=line[2], by=Author(), now=day(5))
    writer.commit(days=4)
    prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(6))

    report = audit(writer.ledger, SAMPLES, None, NOW)

    assert (report.ok, report.partitions, report.holes, report.watermark) == (True, 6, [], day(6))
    assert (report.head_sequence, report.entries) == (5, 6)


def test_an_edited_entry_is_reported(writer: ChainWriter) -> None:
    path = entry_path(writer, 2)
    path.write_bytes(path.read_bytes().replace(b'"rows":20', b'"rows":21'))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES, None, NOW)

    assert not report.ok
    assert not report.ledger_ok
    assert len(report.problems) == 1
    assert "0000000003.json does not follow the bytes of the entry before it" in report.problems[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind":"checkpoint"}', b'{"kind":"promotion"}', b"\xff"])
def test_a_torn_entry_is_reported_and_the_rest_is_still_looked_at(writer: ChainWriter, content: bytes) -> None:
    entry_path(writer, 2).write_bytes(content)

    report = audit(Ledger(writer.store, writer.chain), SAMPLES, None, NOW)

    assert not report.ledger_ok
    assert "0000000002.json is torn, edited or written by a newer trainflow" in report.problems[0]
    assert report.head_sequence == 3


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_lost_entry_is_reported(writer: ChainWriter, sequence: int) -> None:
    entry_path(writer, sequence).unlink()

    report = audit(Ledger(writer.store, writer.chain), SAMPLES, None, NOW)

    assert not report.ledger_ok
    assert f"entry {sequence} is missing, entry {sequence + 1} is there" in report.problems[0]


def test_a_forged_gap_is_found(writer: ChainWriter) -> None:
    forge(writer, 2, lambda raw: raw["split"].pop("holes"))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES, None, NOW)

    assert report.ledger_ok
    assert report.gaps == [Interval(day(3), day(4))]
    assert report.problems == [
        "nothing was trained on [2013-01-04T00:00:00+00:00, 2013-01-05T00:00:00+00:00) and no hole records why"
    ]


def test_a_forged_duplicate_is_found(writer: ChainWriter) -> None:
    forge(writer, 3, lambda raw: raw["split"]["partitions"].insert(0, {
        "start": "2013-01-01T00:00:00Z", "end": "2013-01-02T00:00:00Z", "fingerprint": "x"
    }))  # fmt: skip

    report = audit(Ledger(writer.store, writer.chain), SAMPLES, None, NOW)

    assert report.duplicates == [Interval(day(0), day(1))]
    assert not report.ok


def test_a_forged_parent_is_found(writer: ChainWriter) -> None:
    forge(writer, 3, lambda raw: raw.update(parent_id="nobody"))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES, None, NOW)

    assert not report.ledger_ok
    assert any("is a child of nobody" in problem for problem in report.problems)


def test_samples_that_begin_before_the_chain_did_are_a_gap(writer: ChainWriter) -> None:
    earlier = msgspec.structs.replace(SAMPLES, start=day(-3))

    report = audit(writer.ledger, earlier, None, NOW)

    assert report.gaps == [Interval(day(-3), day(0))]


@pytest.mark.parametrize("change", [{"length_seconds": 3600}, {"start": START.replace(hour=1)}])
def test_partitions_of_other_samples_are_reported(writer: ChainWriter, change: dict[str, Any]) -> None:
    report = audit(writer.ledger, msgspec.structs.replace(SAMPLES, **change), None, NOW)

    assert not report.ok
    assert "are no partitions of these samples" in report.problems[-1]


def test_damaged_files_are_reported_by_checkpoint(writer: ChainWriter) -> None:
    head = writer.ledger.checkpoint()
    writer.store.delete(f"{head.artifacts.path}/model.bin")

    report = audit(writer.ledger, SAMPLES, None, NOW)

    assert (report.ok, report.artifacts_ok, report.ledger_ok) == (False, False, True)
    assert f"checkpoint {head.id} (sequence 3): " in report.problems[0]
    assert audit(writer.ledger, SAMPLES, None, NOW, verify_files=False).ok


def test_partitions_published_again_and_holes_that_filled_are_notices(writer: ChainWriter) -> None:
    def now(start: datetime) -> str | None:
        return {day(1): "sha256:other", day(2): None}.get(start, fingerprint_of(start))

    report = audit(writer.ledger, SAMPLES, None, NOW, fingerprint_now=now)

    assert report.ok
    assert report.republished == [day(1)]
    assert len(report.notices) == 2
    assert "2013-01-02T00:00:00+00:00 was published again" in report.notices[0]
    assert "has samples now" in report.notices[1]


def test_what_is_no_entry_is_a_notice(writer: ChainWriter) -> None:
    writer.store.create_exclusive(f"{writer.chain.ledger}/README", b"")
    writer.store.create_exclusive(f"{writer.chain.ledger}/12.json", b"")

    report = audit(writer.ledger, SAMPLES, None, NOW)

    assert report.ok
    assert len(report.notices) == 2
