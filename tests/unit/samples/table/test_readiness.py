from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainflow.errors import SampleDamaged
from trainflow.samples.spec import Ready, Samples
from trainflow.samples.table.readiness import Readiness, folder_content, is_sample, judge
from trainflow.storage.store import StoreFile

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=2)


def stored(name: str, size: int = 100, age_seconds: float = 3600) -> StoreFile:
    modified = NOW - timedelta(seconds=age_seconds)
    return StoreFile(name, size, modified, modified.isoformat())


DATA, MORE, MARKER = stored("a.parquet"), stored("b.parquet", age_seconds=5), stored("_SUCCESS", 0)


def state(ready: Ready, *files: StoreFile, rows: int = 10, glob: str = "*.parquet") -> tuple[Readiness, str]:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START, ready=ready, files=glob)
    found = judge(samples, START, list(files), NOW, lambda _: rows)
    return found.presence, found.reason


@pytest.mark.parametrize(
    ("ready", "files", "presence", "reason"),
    [
        (Ready(), (), Readiness.MISSING, "nothing is there"),
        (Ready(), (DATA,), Readiness.NOT_READY, "it has no _SUCCESS, which samples.ready asks for by default"),
        # no rows, once that has stayed so: a writer of nothing writes no file, a copy may bring the marker first
        (Ready(), (MARKER,), Readiness.READY, ""),
        (
            Ready(unfinished_seconds=3601),
            (MARKER,),
            Readiness.NOT_READY,
            "*.parquet, only _SUCCESS; it counts as empty",
        ),
        (Ready(marker="_SUCCESS", min_files=1), (MARKER,), Readiness.NOT_READY, "0 of at least 1 file"),
        (Ready(marker="_SUCCESS", min_rows=11), (MARKER,), Readiness.NOT_READY, "10 of at least 11 rows"),
        (Ready(), (MARKER, stored("._SUCCESS.crc")), Readiness.READY, ""),
        (Ready(), (MARKER, stored("a.orc")), Readiness.NOT_READY, "no file that matches *.parquet, but a.orc"),
        (
            Ready(),
            (MARKER, stored("b.csv.gz")),
            Readiness.NOT_READY,
            'b.csv.gz (for files like that: samples.files: "*.csv.gz"',
        ),
        (Ready(min_files=1), (stored("s.000.mds"),), Readiness.NOT_READY, 'like that: samples.files: "*.mds")'),
        (Ready(), (MARKER, stored("_temporary/0/a.parquet")), Readiness.NOT_READY, "no file that matches"),
        (Ready(), (DATA, MARKER), Readiness.READY, ""),
        (Ready(marker="*.done"), (DATA, MARKER), Readiness.NOT_READY, "it has no *.done"),
        (Ready(marker="*.done"), (DATA, stored("x.done")), Readiness.READY, ""),
        (Ready(min_files=2), (DATA,), Readiness.NOT_READY, "1 of at least 2 files"),
        (Ready(min_files=2), (DATA, MORE), Readiness.READY, ""),
        (Ready(min_files=2), (DATA, MARKER), Readiness.NOT_READY, "1 of at least 2 files"),
        (Ready(marker="_SUCCESS", min_files=2), (DATA, MORE), Readiness.NOT_READY, "it has no _SUCCESS"),
        # a copy in which the marker came before the rest of the data
        (Ready(marker="_SUCCESS", min_files=2), (MARKER, DATA), Readiness.NOT_READY, "1 of at least 2 files"),
        (Ready(marker="_SUCCESS", min_rows=11), (MARKER, DATA), Readiness.NOT_READY, "10 of at least 11 rows"),
        (Ready(marker="_SUCCESS", stable_seconds=60), (MARKER, MORE), Readiness.NOT_READY, "less than 60 s ago"),
        (Ready(min_bytes=150), (DATA,), Readiness.NOT_READY, "100 of at least 150 bytes"),
        (Ready(min_bytes=150), (DATA, MORE), Readiness.READY, ""),
        (Ready(min_rows=11), (DATA,), Readiness.NOT_READY, "10 of at least 11 rows"),
        (Ready(min_rows=10), (DATA,), Readiness.READY, ""),
        (Ready(stable_seconds=60), (DATA, MORE), Readiness.NOT_READY, "less than 60 s ago"),
        (Ready(stable_seconds=60), (DATA,), Readiness.READY, ""),
        (Ready(stable_seconds=60, min_files=3), (DATA, MORE), Readiness.NOT_READY, "2 of at least 3 files"),
    ],
)
def test_readiness_needs_every_condition(
    ready: Ready, files: tuple[StoreFile, ...], presence: Readiness, reason: str
) -> None:
    found, said = state(ready, *files)
    assert found is presence
    assert reason in said
    assert bool(said) is (presence is not Readiness.READY)


def test_files_of_a_transaction_that_is_not_committed_are_no_samples() -> None:
    """Databricks: a job that failed leaves its files, and the one that is run again writes them again."""

    def part(transaction: int) -> StoreFile:
        return stored(f"part-00000-tid-{transaction}-8f2b-1-c000.snappy.parquet")

    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START)
    failed, ended = (part(111), stored("_started_111", 0)), (part(222), stored("_started_222", 0), MARKER)
    committed = stored("_committed_222")
    found = judge(samples, START, [*failed, *ended, committed, DATA], NOW, lambda _: 10)
    assert (found.presence, found.files) == (Readiness.READY, (ended[0], DATA))
    # what vacuum has left has no marker of its beginning
    assert judge(samples, START, [failed[0], MARKER, committed], NOW, lambda _: 10).files == (failed[0],)
    nothing = judge(samples, START, [*failed, MARKER], NOW, lambda _: 10)
    assert (nothing.presence, nothing.reason) == (
        Readiness.NOT_READY,
        "what is in it was not committed: it has a _started_111, and no _committed_ of that",
    )


def test_readiness_what_is_still_written_is_no_suggestion() -> None:
    _, said = state(Ready(min_files=1), stored("a.parquet.tmp"))
    assert said == "it has no file that matches *.parquet, but a.parquet.tmp"


def test_partition_that_is_too_young_says_when_to_look_again() -> None:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START, ready=Ready(stable_seconds=60))
    found = judge(samples, START, [MORE], NOW, lambda _: 0)
    assert found.check_again_at == NOW + timedelta(seconds=55)


def test_storage_without_times_cannot_say_that_files_are_stable() -> None:
    found, said = state(Ready(stable_seconds=60), StoreFile("a.parquet", 1, None, ""))
    assert found is Readiness.NOT_READY
    assert "does not say when" in said


def test_readiness_time_is_that_of_last_write() -> None:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START)
    found = judge(samples, START, [DATA, MARKER, MORE], NOW, lambda _: 0)
    assert found.changed == MORE.modified
    assert [file.path for file in found.files] == ["a.parquet", "b.parquet"]


def _no_footer(files: tuple[StoreFile, ...]) -> int:
    problem = f"{files[0].path} cannot be read as Parquet"
    raise SampleDamaged(problem, problem=problem)


@pytest.mark.parametrize("marker", [None, "_SUCCESS"])
def test_file_without_footer_is_being_written_whatever_marker_says(marker: str | None) -> None:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START, ready=Ready(marker=marker, min_rows=1))
    found = judge(samples, START, [DATA, MARKER], NOW, _no_footer)
    assert found.presence is Readiness.NOT_READY
    assert "a.parquet" in found.reason
    assert found.damaged is not None


def test_storage_without_times_cannot_say_that_partition_stays_empty() -> None:
    found, said = state(Ready(), StoreFile("_SUCCESS", 0, None, ""))
    assert found is Readiness.NOT_READY
    assert "does not say since when" in said


@pytest.mark.parametrize(
    ("name", "glob", "data"),
    [
        ("a.parquet", "*.parquet", True),
        (".a.parquet.crc", "*", False),
        ("_SUCCESS", "*", False),
        ("_temporary/0/a.parquet", "**/*.parquet", False),
        ("country=__HIVE_DEFAULT_PARTITION__/a.parquet", "**/*.parquet", True),
        ("_delta.parquet", "_*.parquet", True),
    ],
)
def test_readiness_data_files_are_recognised(name: str, glob: str, data: bool) -> None:
    assert is_sample(name, glob) is data


@pytest.mark.parametrize(
    ("glob", "marker", "own", "asked"),
    [
        ("*.parquet", None, (DATA, MARKER), [False]),
        ("**/*.parquet", None, (DATA, MARKER), [True]),
        ("*.parquet", "log/_DONE", (DATA, MARKER), [True]),
        # an empty partition, or one whose data lies in folders of another column
        ("*.parquet", None, (MARKER,), [False, True]),
        ("*.parquet", None, (), [False, True]),
    ],
)
def test_folders_below_are_listed_only_where_samples_may_lie_there(
    glob: str, marker: str | None, own: tuple[StoreFile, ...], asked: list[bool]
) -> None:
    samples = Samples(path="t/{start:%F}/", length_seconds=60, start=START, files=glob, ready=Ready(marker=marker))
    told: list[bool] = []

    def listing(below: bool) -> list[StoreFile]:
        told.append(below)
        return list(own)

    assert folder_content(samples, listing) == list(own)
    assert told == asked


def test_partition_that_is_a_file_never_has_folders_below_it() -> None:
    samples = Samples(path="t/{start:%F}.csv", length_seconds=86400, start=START)
    assert folder_content(samples, lambda below: pytest.fail("looked below") if below else [stored("2024-01-01.csv")])


@pytest.mark.parametrize("marker", [None, "_SUCCESS"])
def test_partition_with_data_in_folders_below_is_not_empty_and_says_what_to_write(marker: str | None) -> None:
    ready = Ready(marker=marker, min_bytes=None if marker else 1)
    found, said = state(ready, MARKER, stored("region=eu/a.parquet"))
    assert found is Readiness.NOT_READY
    assert 'but region=eu/a.parquet (for what lies in folders below: samples.files: "**/*.parquet")' in said
