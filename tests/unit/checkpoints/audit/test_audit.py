from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.audit.raw_ledger import RawPiece
from trainflow.checkpoints.audit.timeline import Interval
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import ArtifactFile, Author, CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.fork import adopt, fork
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind, skip
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.identifiers import digest
from trainflow.samples.spec import Samples
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import START, ChainWriter, day, fingerprint_of, resealed, split_of

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
    """Change an entry, mend the digests of all after it and take the mark away: what only the audit's own reckoning can
    find."""
    writer.store.delete(writer.chain.mark)
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
        path.write_bytes(resealed(raw))
        previous = digest(path.read_bytes())


def test_sound_chain_is_sound(writer: ChainWriter) -> None:
    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert report.ok
    assert (report.partitions, report.gaps, report.duplicates, report.problems) == (5, [], [], [])
    assert report.holes == [Interval(day(3), day(4), "missing")]
    assert (report.head_number, report.watermark, report.entries, report.checkpoints) == (3, day(6), 3, 3)
    assert report.ledger_ok
    assert report.artifacts_ok
    assert json.loads(msgspec.json.encode(report))["watermark"] == "2013-01-07T00:00:00Z"


def test_chain_that_does_not_exist_yet_is_sound_and_empty(tmp_path: Path) -> None:
    report = audit(ChainWriter(LocalStore(tmp_path), tmp_path).ledger, SAMPLES)

    assert (report.ok, report.partitions, report.head_number, report.watermark) == (True, 0, 0, None)


def test_audit_rewound_work_is_off_line_and_pruned_files_are_not_missed(writer: ChainWriter) -> None:
    line = [summary.id for summary in writer.ledger.line()]
    rewind(writer.ledger, line[0], expected_head=line[2], by=Author(), now=day(5))
    writer.commit(days=4)
    prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(6))

    report = audit(writer.ledger, SAMPLES)

    assert (report.ok, report.partitions, report.holes, report.watermark) == (True, 6, [], day(6))
    assert (report.head_number, report.entries) == (4, 6)


def test_edited_entry_is_reported(writer: ChainWriter) -> None:
    path = entry_path(writer, 2)
    path.write_bytes(path.read_bytes().replace(b'"rows":20', b'"rows":21'))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert not report.ok
    assert not report.ledger_ok
    assert len(report.problems) == 2
    assert "0000000002.json is not what was written: its own seal does not hold" in report.problems[0]
    assert "0000000003.json does not follow the bytes of the entry before it" in report.problems[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"rows":10', b'"rows":11', "its own seal does not hold"),
        (b'"seal":"sha256:', b'"sealed":"sha256:', "has lost its seal"),
    ],
)
def test_newest_entry_cannot_be_edited_in_passing_either(
    writer: ChainWriter, old: bytes, new: bytes, message: str
) -> None:
    path = entry_path(writer, 3)
    path.write_bytes(path.read_bytes().replace(old, new))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert [message in problem for problem in report.problems] == [True]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"kind":"checkpoint"}',
        b'{"kind":"promotion"}',
        b'{"kind":"demotion","sequence":2,"previous":""}',
    ],
)
def test_torn_entry_is_reported_and_rest_is_still_looked_at(writer: ChainWriter, content: bytes) -> None:
    entry_path(writer, 2).write_bytes(content)

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert not report.ledger_ok
    assert "0000000002.json is torn, edited or written by a newer trainflow" in report.problems[0]
    assert report.head_number == 3


@pytest.mark.parametrize("sequence", [1, 2])
def test_lost_entry_is_reported(writer: ChainWriter, sequence: int) -> None:
    entry_path(writer, sequence).unlink()

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert not report.ledger_ok
    assert f"entry {sequence} is missing, entry {sequence + 1} is there" in report.problems[0]


def test_forged_gap_is_found(writer: ChainWriter) -> None:
    forge(writer, 2, lambda raw: raw["split"].pop("holes"))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert report.ledger_ok
    assert report.gaps == [Interval(day(3), day(4))]
    assert report.problems == ["nothing was trained on [2013-01-04T00:00Z, 2013-01-05T00:00Z) and no hole records why"]


def test_forged_duplicate_is_found(writer: ChainWriter) -> None:
    forge(writer, 3, lambda raw: raw["split"]["partitions"].insert(0, {
        "start": "2013-01-01T00:00:00Z", "end": "2013-01-02T00:00:00Z", "fingerprint": "x"
    }))  # fmt: skip

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert report.duplicates == [Interval(day(0), day(1))]
    assert not report.ok


def test_forged_parent_is_found(writer: ChainWriter) -> None:
    forge(writer, 3, lambda raw: raw.update(parent_id="missing"))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert not report.ledger_ok
    assert any("is a child of missing" in problem for problem in report.problems)


def test_samples_that_begin_before_chain_did_are_gap(writer: ChainWriter) -> None:
    earlier = msgspec.structs.replace(SAMPLES, start=day(-3))

    report = audit(writer.ledger, earlier)

    assert report.gaps == [Interval(day(-3), day(0))]


@pytest.mark.parametrize("change", [{"length_seconds": 3600}, {"start": START.replace(hour=1)}])
def test_partitions_of_other_samples_are_reported(writer: ChainWriter, change: dict[str, Any]) -> None:
    report = audit(writer.ledger, msgspec.structs.replace(SAMPLES, **change))

    assert not report.ok
    assert "are none of these samples" in report.problems[-1]


def test_damaged_files_are_reported_by_checkpoint(writer: ChainWriter) -> None:
    head = writer.ledger.checkpoint()
    writer.store.delete(f"{head.artifacts.path}/model.bin")

    report = audit(writer.ledger, SAMPLES)

    assert (report.ok, report.artifacts_ok, report.ledger_ok) == (False, False, True)
    assert f"checkpoint 3 ({head.id}): " in report.problems[0]
    assert audit(writer.ledger, SAMPLES, verify_files=False).ok


def test_partitions_published_again_are_notices(writer: ChainWriter) -> None:
    def now(trained: Sequence[RawPiece]) -> list[str | None]:
        changed: dict[datetime, str | None] = {day(1): "sha256:other", day(2): None}
        return [changed.get(each.start, fingerprint_of(each.start)) for each in trained]

    report = audit(writer.ledger, SAMPLES, fingerprints_now=now)

    assert report.ok
    assert report.republished == [day(1)]
    (notice,) = report.notices
    assert "2013-01-02T00:00Z was published again" in notice


def test_audit_covers_every_kind_of_entry(writer: ChainWriter) -> None:
    """[0, 6) with day 3 a hole; promoted; days 6 and 7 skipped; day 3 filled; [6, 9) trained; then day 9 skipped."""
    head = writer.ledger.checkpoint()
    promote(writer.ledger, head.id, "champion", by=Author(), now=day(6))
    skip(writer.ledger, day(6), day(8), expected_head=head.id, by=Author(), now=day(7), reason="bad")
    fill = writer.commit(fills=True, split=split_of(3))
    writer.commit(days=3, skip=[0, 1])
    head = writer.ledger.checkpoint()
    skip(writer.ledger, day(9), day(10), expected_head=head.id, by=Author(), now=day(9), reason="bad again")

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert report.problems == []
    assert (report.partitions, report.filled, report.watermark) == (7, 1, day(9))
    assert (fill.watermark, report.promoted) == (day(6), {"champion": fill.parent_id})
    assert [each.start for each in report.holes] == [day(6), day(7)]
    assert report.skips == [Interval(day(9), day(10), "bad again")]
    assert (report.entries, report.checkpoints, report.rewinds) == (8, 5, 0)

    rewind(writer.ledger, report.promoted["champion"], expected_head=head.id, by=Author(), now=day(9))
    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert report.problems == []
    assert (report.holes, report.skips, report.rewinds) == ([Interval(day(3), day(4), "missing")], [], 1)
    assert (report.filled, report.watermark) == (0, day(6))


@pytest.mark.parametrize(
    ("sequence", "change", "message"),
    [
        (4, {"checkpoint_id": "missing"}, "promotes missing, which is not on the line"),
        (5, {"parent_id": "missing"}, "skips after missing"),
        (5, {"start": "2013-01-08T00:00:00Z"}, "which is not where the chain ended"),
        (5, {"end": "2013-01-12T00:00:00Z"}, "as a hole, which was skipped before"),
        (6, {"watermark": "2013-01-09T00:00:00Z"}, "fills a hole and moves the watermark"),
        (6, {"kind": "checkpoint"}, "begins at 2013-01-04"),
        (7, {"kind": "hole filled"}, "which was no hole"),
        (8, {"kind": "fork", "origin": {"chain": {}, "checkpoint_id": "x"}, "watermark": "2013-01-09T00:00:00Z"},
         "is a fork, which only the first entry can be"),
    ],
)  # fmt: skip
def test_audit_forged_newer_kinds_are_found(
    writer: ChainWriter, sequence: int, change: dict[str, Any], message: str
) -> None:
    head = writer.ledger.checkpoint()
    promote(writer.ledger, head.id, "champion", by=Author(), now=day(6))
    skip(writer.ledger, day(6), day(8), expected_head=head.id, by=Author(), now=day(7), reason="bad")
    writer.commit(fills=True, split=split_of(3))
    last = writer.commit(days=3, skip=[0, 1])
    promote(writer.ledger, last.id, "champion", by=Author(), now=day(9))
    forge(writer, sequence, lambda raw: raw.update(change))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert not report.ok
    assert any(message in problem for problem in report.problems), report.problems


def test_promoted_checkpoint_must_not_have_been_pruned(writer: ChainWriter) -> None:
    first = writer.ledger.line()[0].id
    prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(6))
    promote(writer.ledger, writer.ledger.checkpoint().id, "champion", by=Author(), now=day(6))
    forge(writer, 5, lambda raw: raw.update(checkpoint_id=first))

    report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert any("is not on the line or has no files" in problem for problem in report.problems)


def test_forked_chain_begins_where_it_was_forked(writer: ChainWriter, tmp_path: Path) -> None:
    head = writer.ledger.checkpoint()
    branch = ChainWriter(writer.store, tmp_path / "branch", ChainKey("flights", "main", "deeper"))
    origin = CheckpointRef(writer.chain, head.id)
    fork(branch.ledger, origin, head.watermark, by=Author(), now=day(6))
    branch.commit(split=split_of(6), origin=origin)

    report = audit(branch.ledger, SAMPLES)

    assert report.problems == []
    assert (report.start, report.partitions) == (f"forked from flights/main/main@{head.id}", 1)

    forge(branch, 2, lambda raw: raw.update(origin=None))
    assert any("was not trained from" in problem for problem in audit(branch.ledger, SAMPLES).problems)
    forge(branch, 1, lambda raw: raw.update(watermark="2013-01-06T00:00:00Z"))
    assert audit(branch.ledger, SAMPLES).gaps == [Interval(day(5), day(6))]


def test_imported_chain_begins_at_its_import(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    adopt(writer.ledger, "s3://old/20130111", day(10), [ArtifactFile("m", 1, "x")], by=Author(), now=day(6))
    writer.commit(split=split_of(10))

    report = audit(writer.ledger, SAMPLES)

    assert report.problems == []
    assert (report.start, report.watermark) == ("adopted from s3://old/20130111", day(11))


def test_audit_stray_file_is_a_notice(writer: ChainWriter) -> None:
    writer.store.create_exclusive(f"{writer.chain.ledger}/README", b"")
    writer.store.create_exclusive(f"{writer.chain.ledger}/12.json", b"")

    report = audit(writer.ledger, SAMPLES)

    assert report.ok
    assert len(report.notices) == 2
