from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from trainflow.samples.spec import GapPolicy
from trainflow.samples.table.probe import SharedListings, probe
from trainflow.storage.local import LocalStore

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every listing that is made."""
    made: list[str] = []
    files, names = LocalStore.listing, LocalStore.names

    def count_files(self, folder, *, recursive):
        made.append(folder)
        return files(self, folder, recursive=recursive)

    def count_names(self, folder):
        made.append(folder)
        return names(self, folder)

    monkeypatch.setattr(LocalStore, "listing", count_files)
    monkeypatch.setattr(LocalStore, "names", count_names)
    return made


def test_missing_then_being_written_then_ready(daily, now) -> None:
    found = probe(daily.samples, START, daily.root, now)
    assert (found.ready, found.reason) == (False, "the partition 2024-01-01T00:00Z is not there yet")
    daily.write(0, marker=None)
    found = probe(daily.samples, START, daily.root, now)
    assert not found.ready
    assert found.reason.startswith("the partition 2024-01-01T00:00Z is not ready: it has no _SUCCESS")
    daily.write(0)
    assert probe(daily.samples, START, daily.root, now).ready


def test_probe_lists_one_folder_once(daily, now, asked: list[str]) -> None:
    daily.write(*range(20))
    probe(daily.samples, START + 20 * DAY, daily.root, now)
    assert asked == ["data/date=2024-01-21"]


def test_end_of_table_ends_wait(daily, now) -> None:
    samples = msgspec.structs.replace(daily.samples, end=START + DAY)
    assert probe(samples, START + DAY, daily.root, now).ready


@pytest.mark.parametrize(
    ("gaps", "age", "ready", "reason"),
    [
        (GapPolicy(3600, "skip"), 3600, True, "policy says to step over it"),
        (GapPolicy(3600, "fail"), 3600, True, "samples.gaps says fail"),
        (GapPolicy(3600, "skip"), 3599, False, "skip at"),
    ],
)
def test_gap_ends_wait_when_policy_says_so(daily, now, gaps: GapPolicy, age: int, ready: bool, reason: str) -> None:
    daily.write(1, at=now - age * SECOND)
    samples = msgspec.structs.replace(daily.samples, gaps=gaps)
    assert not probe(samples, START, daily.root, now).ready
    found = probe(samples, START, daily.root, now, look_later=True)
    assert found.ready is ready
    assert reason in found.reason
    assert found.check_again_at == (None if ready else now + SECOND)


def test_probe_without_later_ones_waits_on(daily, now) -> None:
    assert not probe(daily.samples, START, daily.root, now, look_later=True).ready


def test_watchers_of_one_partition_share_its_listing(daily, now, asked: list[str]) -> None:
    shared = SharedListings(max_age_seconds=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: probe(daily.samples, START, daily.root, now, listings=shared), range(50)))
    assert not any(answer.ready for answer in answers)
    assert len(asked) == 1


def test_watchers_of_many_partitions_share_listing_of_their_parent(daily, now, asked: list[str]) -> None:
    daily.write(900)
    shared = SharedListings(max_age_seconds=1)
    found = [probe(daily.samples, START + n * DAY, daily.root, now, listings=shared).ready for n in range(1000)]
    assert found.index(True) == 900
    assert sum(found) == 1
    assert len(asked) == 8 + 1 + 1


def test_listing_is_not_older_than_promised(daily, now) -> None:
    shared = SharedListings(max_age_seconds=1)
    assert not probe(daily.samples, START, daily.root, now, listings=shared).ready
    daily.write(0)
    assert not probe(daily.samples, START, daily.root, now + 0.9 * SECOND, listings=shared).ready
    assert probe(daily.samples, START, daily.root, now + SECOND, listings=shared).ready
