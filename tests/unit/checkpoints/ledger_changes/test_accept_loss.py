"""A ledger that has lost entries for good: what can be put back, what is committed again, and going on without."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.audit.audit import AuditReport, audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger import snapshots
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef, Loss
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import raise_if_short
from trainflow.checkpoints.ledger_changes.accept_loss import damage_of, put_right
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.stages.dependents import register_origin
from trainflow.checkpoints.stages.upstream_rewinds import upstream_rewind
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.errors import ChainMoved, LedgerCorrupt, LedgerTooNew
from trainflow.storage.store import SEAL
from trainflow.testing.chains import ChainWriter, day
from trainflow.testing.faulty_store import FaultyStore

CHAIN = ChainKey("flights")
ME = Author(person="ada")
LAST = 12
PROMOTED = 8
NOW = day(1000)


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChainWriter:
    """Twelve entries: checkpoints, and a promotion as the eighth."""
    monkeypatch.setattr(snapshots, "SNAPSHOT_INTERVAL", 4)
    made = ChainWriter(MemoryStore(), tmp_path, CHAIN)
    made.commit_many(PROMOTED - 1)
    promote(made.ledger, made.ledger.checkpoint().id, "champion", by=Author(), now=day(8))
    made.commit_many(LAST - PROMOTED)
    return made


def lose(writer: ChainWriter, numbers: Collection[int], *, copies: bool = True, beside: bool = False) -> None:
    contents = writer.store.contents  # type: ignore[attr-defined]
    for path in list(contents):
        lost = path in {CHAIN.entry(number) for number in numbers}
        if lost or (not copies and path.endswith(SEAL)):
            data = contents.pop(path)
            if not lost:
                contents[path] = b"" if data else data
        elif beside and (path == CHAIN.mark or path.startswith((CHAIN.snapshots, CHAIN.pages))):
            contents.pop(path)


def put_right_now(writer: ChainWriter) -> Loss | None:
    damage = damage_of(Ledger(writer.store, CHAIN))
    assert damage is not None
    # a process that has read more than is there now is refused: another one goes on
    writer.ledger = Ledger(writer.store, CHAIN)
    return put_right(Ledger(writer.store, CHAIN), damage, by=ME, now=NOW, reason="the disk died")


def assert_sound(writer: ChainWriter) -> AuditReport:
    """It can be appended to, begun, swept and audited, and each day from the first on was trained once."""
    ledger = Ledger(writer.store, CHAIN)
    assert damage_of(ledger) is None
    raise_if_short(ledger)
    before = dict(writer.store.contents)  # type: ignore[attr-defined]
    sweep_garbage(ledger, NOW)
    assert {path for path in before if "/artifacts/" in path} <= set(writer.store.contents)  # type: ignore[attr-defined]
    report = audit(ledger, None)
    assert report.problems == []
    trained = sorted(each.start for entry in line_from_head(ledger, ledger.state()) for each in entry.split.partitions)
    assert trained == [day(number) for number in range(len(trained))]
    return report


def test_whole_ledger_has_no_damage(writer: ChainWriter) -> None:
    assert damage_of(writer.ledger) is None


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("first", range(PROMOTED + 1, LAST + 1))
def test_tail_of_checkpoints_is_put_back_byte_for_byte(writer: ChainWriter, first: int, beside: bool) -> None:
    before = {number: writer.store.read(CHAIN.entry(number)) for number in range(1, LAST + 1)}
    lose(writer, range(first, LAST + 1), beside=beside)
    assert put_right_now(writer) is None
    assert {number: writer.store.read(CHAIN.entry(number)) for number in before} == before
    assert assert_sound(writer).notices == []


@pytest.mark.parametrize("lost", [number for number in range(1, LAST + 1) if number != PROMOTED])
def test_one_checkpoint_in_middle_is_put_back(writer: ChainWriter, lost: int) -> None:
    lose(writer, [lost])
    assert put_right_now(writer) is None
    assert assert_sound(writer).entries == LAST


def torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def edited(data: bytes) -> bytes:
    return data.replace(b'"branch"', b'"brench"').replace(b'"at":"2', b'"at":"1')


def emptied(_data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [torn, edited, emptied])
@pytest.mark.parametrize("number", [number for number in range(1, LAST + 1) if number != PROMOTED])
def test_damaged_entry_with_copy_is_put_back_and_those_after_it_stay(
    writer: ChainWriter, number: int, damage: Callable[[bytes], bytes]
) -> None:
    contents = writer.store.contents  # type: ignore[attr-defined]
    before = {each: contents[CHAIN.entry(each)] for each in range(1, LAST + 1)}
    contents[CHAIN.entry(number)] = broken = damage(before[number])
    assert broken != before[number]
    assert put_right_now(writer) is None
    assert {each: contents[CHAIN.entry(each)] for each in before} == before
    assert [data for path, data in contents.items() if path.startswith(f"{CHAIN.set_aside}/")] == [broken]
    assert assert_sound(writer).notices == []


def test_two_entries_in_each_others_place_are_put_back(writer: ChainWriter) -> None:
    contents = writer.store.contents  # type: ignore[attr-defined]
    first, second = CHAIN.entry(4), CHAIN.entry(5)
    contents[first], contents[second] = contents[second], contents[first]
    assert put_right_now(writer) is None
    assert assert_sound(writer).entries == LAST


@pytest.mark.parametrize("number", [3, PROMOTED, LAST])
def test_entry_of_newer_version_is_no_damage(writer: ChainWriter, number: int) -> None:
    contents = writer.store.contents  # type: ignore[attr-defined]
    newer = msgspec.json.encode({**msgspec.json.decode(contents[CHAIN.entry(number)]), "format": 99, "seal": ""})
    contents[CHAIN.entry(number)] = newer
    with pytest.raises(LedgerTooNew, match="Upgrade this one"):
        damage_of(Ledger(writer.store, CHAIN))


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("first", range(1, LAST + 1))
def test_chain_goes_on_exactly_once_after_any_tail_is_lost(
    writer: ChainWriter, first: int, beside: bool, copies: bool
) -> None:
    ids = [each.id for each in writer.ledger.line()]
    lose(writer, range(first, LAST + 1), copies=copies, beside=beside)
    entry = put_right_now(writer)
    report = assert_sound(writer)
    ledger = Ledger(writer.store, CHAIN)
    if copies:
        assert [each.id for each in ledger.line()] == ids
    else:
        assert entry is not None
        committed = [number for number in range(1, LAST + 1) if number != PROMOTED]
        lost = {name for name, number in zip(ids, committed, strict=True) if number >= first}
        assert set(entry.checkpoint_ids) == lost
        assert entry.by.person == "ada"
        assert [each for each in report.notices if "accepted by ada" in each and "the disk died" in each]
    # trained forward again, and told for ever
    for _ in range(3):
        writer.commit()
    assert assert_sound(writer).partitions >= 3


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("lost", range(1, LAST))
def test_entries_after_lost_one_are_set_aside_or_committed_again(writer: ChainWriter, lost: int, copies: bool) -> None:
    lose(writer, [lost], copies=copies)
    put_right_now(writer)
    assert_sound(writer)
    kept = {path.rpartition("/")[2] for path in writer.store.contents if path.startswith(f"{CHAIN.set_aside}/")}  # type: ignore[attr-defined]
    if lost == PROMOTED or not copies:
        assert kept == {f"{number:010d}.json" for number in range(lost + 1, LAST + 1)}
        whole = lost == PROMOTED
        assert (len(Ledger(writer.store, CHAIN).line()) == LAST - 1) == whole
    else:
        assert kept == set()


def test_run_that_began_before_loss_cannot_commit(writer: ChainWriter) -> None:
    head = writer.ledger.checkpoint()
    request = writer.request(parent=head, generation=writer.ledger.state().generation)
    lose(writer, [LAST], copies=False)
    put_right_now(writer)
    with pytest.raises(ChainMoved):
        commit(writer.store, request, NOW)


def test_reader_that_knew_more_cannot_append(writer: ChainWriter) -> None:
    living = Ledger(writer.store, CHAIN)
    living.state()
    lose(writer, [LAST - 1, LAST], copies=False)
    put_right_now(writer)
    with pytest.raises(LedgerCorrupt):
        promote(living, living.checkpoint().id, "late", by=Author(), now=NOW)
    writer.ledger = Ledger(writer.store, CHAIN)
    writer.commit()
    with pytest.raises(LedgerCorrupt):
        promote(living, living.checkpoint().id, "late", by=Author(), now=NOW)


def test_stage_that_stands_on_what_was_lost_goes_back(writer: ChainWriter, tmp_path: Path) -> None:
    from trainflow.checkpoints.ledger.entries import UpstreamSeen

    head = writer.ledger.checkpoint()
    fine = ChainWriter(writer.store, tmp_path / "fine", ChainKey("flights", "fine"))
    register_origin(writer.store, CHAIN, fine.chain)
    fine.commit(origin=CheckpointRef(CHAIN, head.id), upstream=UpstreamSeen(CHAIN, writer.ledger.state().generation))
    lose(writer, [LAST], copies=False)
    entry = put_right_now(writer)
    assert entry is not None
    assert entry.checkpoint_ids == [head.id]
    back = upstream_rewind(fine.ledger)
    assert back is not None
    assert back.to_id is None


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("lost", [(PROMOTED, LAST), (LAST - 1, LAST)])
def test_command_killed_at_any_call_is_completed_by_same_command(
    writer: ChainWriter, lost: tuple[int, int], copies: bool, beside: bool
) -> None:
    lose(writer, lost, copies=copies, beside=beside)
    assert isinstance(writer.store, MemoryStore)
    before, killed = dict(writer.store.contents), 0
    damage = damage_of(Ledger(writer.store, CHAIN))
    assert damage is not None
    for call in range(1, 200):
        writer.store.contents = dict(before)
        store = FaultyStore(writer.store, fail_at=call, error=lambda _: KeyboardInterrupt())
        try:
            put_right(Ledger(store, CHAIN), damage, by=ME, now=NOW)
        except KeyboardInterrupt:
            killed += 1
        else:
            break
        rest = damage_of(Ledger(writer.store, CHAIN))
        if rest is not None:
            put_right(Ledger(writer.store, CHAIN), rest, by=ME, now=NOW)
        assert_sound(writer)
        losses = [each for each in Ledger(writer.store, CHAIN).entries() if isinstance(each, Loss)]
        assert len(losses) == damage.is_lossy
    assert killed >= 4


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("number", [5, LAST])
def test_command_killed_while_it_puts_damaged_entry_back_is_completed(
    writer: ChainWriter, number: int, beside: bool
) -> None:
    assert isinstance(writer.store, MemoryStore)
    lose(writer, [], beside=beside)
    whole = dict(writer.store.contents)
    before, killed = {**whole, CHAIN.entry(number): b"{"}, 0
    for call in range(1, 50):
        writer.store.contents = dict(before)
        damage = damage_of(Ledger(writer.store, CHAIN))
        assert damage is not None
        store = FaultyStore(writer.store, fail_at=call, error=lambda _: KeyboardInterrupt())
        try:
            put_right(Ledger(store, CHAIN), damage, by=ME, now=NOW)
        except KeyboardInterrupt:
            killed += 1
        else:
            break
        rest = damage_of(Ledger(writer.store, CHAIN))
        if rest is not None:
            assert not rest.is_lossy
            put_right(Ledger(writer.store, CHAIN), rest, by=ME, now=NOW)
        assert writer.store.contents[CHAIN.entry(number)] == whole[CHAIN.entry(number)]
        assert_sound(writer)
    assert killed >= 4
