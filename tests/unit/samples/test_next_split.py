"""The rule, over tables written to disk and over one that is only imagined."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from trainflow.errors import SampleCheckFailed, SampleDamaged, SampleGap
from trainflow.samples.inventory import open_inventory
from trainflow.samples.next_split import CaughtUp, NextSplit, SplitFound, Waiting, decide, next_split
from trainflow.samples.readiness import PartitionState, Readiness
from trainflow.samples.spec import Checks, GapPolicy, Samples, SplitLimits
from trainflow.samples.split_content import Columns, SampleFile, SplitPartition, partition_of
from trainflow.testing.chains import NoColumnUnifier

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class Imagined:
    """A table as a string: `R` ready, `e` ready and empty, `w` being written, `W` the same, just now, `.` missing, `!`
    ready and bad, `%` ready by its listing, with a file that cannot be read, `#` the same, found while its rows were
    counted. Rows: 10 a partition.

    Everything was written an hour before `now`.
    """

    def __init__(self, days: str, now: datetime = NOW, exists: bool = True) -> None:
        self.days, self.now, self.exists = days, now, exists
        self.asked: list[int] = []

    def state(self, start: datetime) -> PartitionState:
        number = (start - START) // DAY
        self.asked.append(number)
        mark = self.days[number] if number < len(self.days) else "."
        if mark in "Re!%":
            return PartitionState(start, Readiness.READY, changed=NOW - HOUR)
        if mark == "#":
            damaged = SampleDamaged("no footer", problem="a.parquet has no footer")
            return PartitionState(start, Readiness.NOT_READY, "no footer", NOW - HOUR, damaged=damaged)
        if mark in "wW":
            written = NOW - HOUR if mark == "w" else NOW
            return PartitionState(start, Readiness.NOT_READY, "it has no _SUCCESS", changed=written)
        return PartitionState(start, Readiness.MISSING, "nothing is there")

    def later(self, start: datetime) -> Iterator[datetime]:
        first = (start - START) // DAY + 1
        return (START + number * DAY for number in range(first, len(self.days)) if self.days[number] != ".")

    def newest(self) -> datetime | None:
        return max((START + n * DAY for n, mark in enumerate(self.days) if mark in "R!"), default=None)

    def content(self, start: datetime) -> SplitPartition:
        if self.days[(start - START) // DAY] == "!":
            raise SampleCheckFailed("bad", partition=start, problems=("bad",))
        if self.days[(start - START) // DAY] == "%":
            raise SampleDamaged("no footer", problem="a.parquet has no footer")
        if self.days[(start - START) // DAY] == "e":
            return partition_of(start, start + DAY, ())
        return partition_of(start, start + DAY, (SampleFile(f"{start:%F}/a.parquet", 100, 10, "f", (10,)),))

    def unified(self, chain: Columns) -> NoColumnUnifier:
        return NoColumnUnifier()

    def table_exists(self) -> bool:
        return self.exists


def ask(days: str, watermark: int | None = None, now: datetime = NOW, **more: object) -> NextSplit:
    gaps = more.pop("gaps", GapPolicy())
    end = more.pop("end", None)
    catch_up = more.pop("catch_up", None)
    lag = more.pop("lag", 0)
    bounds = [START + bound * DAY for bound in more.pop("bounds", ())]  # type: ignore[attr-defined]
    samples = Samples(
        path="t/{start:%F}",
        length_seconds=86400,
        start=START,
        gaps=gaps,  # type: ignore[arg-type]
        catch_up_seconds=None if catch_up is None else catch_up * DAY.total_seconds(),  # type: ignore[operator]
        end=None if end is None else START + end * DAY,  # type: ignore[operator]
        lag=lag,  # type: ignore[arg-type]
    )
    mark = None if watermark is None else START + watermark * DAY
    return decide(samples, mark, SplitLimits(**more), Imagined(days, now), bounds)  # type: ignore[arg-type]


def shape(found: NextSplit) -> str:
    """The split as letters from the watermark: `P` partition, `-` hole."""
    assert isinstance(found, SplitFound), found
    split = found.split
    marks = dict.fromkeys((partition.start for partition in split.partitions), "P")
    for hole in split.holes:
        marks.update({hole.start + n * DAY: "-" for n in range((hole.end - hole.start) // DAY)})
    assert split.start == min(marks)
    assert split.end == max(marks) + DAY
    return "".join(marks[moment] for moment in sorted(marks))


SKIP = GapPolicy(0, "skip")


@pytest.mark.parametrize(
    ("days", "watermark", "bounds", "expected"),
    [
        ("RRRRR", None, (2, 4), "PP"),
        ("RRRRR", 2, (2, 4), "PP"),
        ("RRRRR", 1, (2, 4), "P"),
        ("RRRRR", 1, (5,), "PPPP"),
        # what has no partition before a bound is no reason to stop there
        (".RRRR", None, (1, 3), "-PP"),
        ("..R.R", None, (1, 2, 4), "--P"),
    ],
)
def test_split_ends_at_first_bound_it_can(
    days: str, watermark: int | None, bounds: tuple[int, ...], expected: str
) -> None:
    assert shape(ask(days, watermark, bounds=bounds, gaps=SKIP)) == expected


@pytest.mark.parametrize(("watermark", "bounds"), [(2, (2,)), (3, (1, 2)), (0, (0,))])
def test_next_split_beyond_last_bound_takes_nothing(watermark: int, bounds: tuple[int, ...]) -> None:
    found = ask("RRRRR", watermark, bounds=bounds)
    assert isinstance(found, CaughtUp)
    assert (found.bounded, found.finished) == (True, False)


@pytest.mark.parametrize(
    ("days", "lag", "expected"),
    [
        ("RRRRR", 2, "PPP"),
        ("RRRwR", 2, "PPP"),
        # what comes later than the one that is due counts as well
        ("RR.RR", 1, "PP"),
        ("RRR.R", 1, "PPP"),
    ],
)
def test_partition_counts_when_later_one_is_ready_too(days: str, lag: int, expected: str) -> None:
    assert shape(ask(days, lag=lag)) == expected


def test_next_split_too_early_partition_is_waited_for() -> None:
    nothing = ask("RRR", 1, lag=2)
    assert isinstance(nothing, CaughtUp)
    assert (nothing.wait_for, nothing.finished) == (START + 3 * DAY, False)
    assert "counts when 2024-01-04T00:00Z is ready too (lag 2)" in nothing.reason
    writing = ask("RRRw", 1, lag=2)
    assert isinstance(writing, Waiting)
    assert writing.partition_start == START + 3 * DAY


def test_next_split_lag_leaves_last_partitions_out() -> None:
    assert shape(ask("RRRRR", end=5, lag=2)) == "PPP"
    done = ask("RRRRR", 3, end=5, lag=2)
    assert isinstance(done, CaughtUp)
    assert done.finished


@pytest.mark.parametrize(
    ("days", "limits", "expected"),
    [
        ("RRRRR", {}, "PPPPP"),
        ("RRRRR", {"partitions": 2}, "PP"),
        ("RRRRR", {"rows": 20}, "PP"),
        ("RRRRR", {"rows": 29}, "PP"),
        ("RRRRR", {"rows": 1}, "P"),
        ("RRRRR", {"bytes": 350}, "PPP"),
        ("RRRRR", {"bytes": 350, "partitions": 4, "rows": 20}, "PP"),
        ("RRwRR", {}, "PP"),
        ("RR.RR", {}, "PP"),
        ("RR.RR", {"gaps": SKIP}, "PP-PP"),
        ("..RR", {"gaps": SKIP}, "--PP"),
        ("RR..", {"gaps": SKIP}, "PP"),
        ("RR.w", {"gaps": SKIP}, "PP"),
        ("RR.wR", {"gaps": SKIP}, "PP"),
        ("RR.wR", {"gaps": GapPolicy(60, "skip")}, "PP--P"),
        ("RR!RR", {}, "PP"),
        ("RRR.R", {"end": 3, "gaps": SKIP}, "PPP"),
        ("R.R.R", {"partitions": 2, "gaps": SKIP}, "P-P"),
    ],
)
def test_next_split_limits_decide_its_end(days: str, limits: dict[str, object], expected: str) -> None:
    assert shape(ask(days, **limits)) == expected


@pytest.mark.parametrize(
    ("days", "watermark", "bound", "expected"),
    [
        ("RRRRRRR", 1, 3, "---PPP"),
        ("RRRRRRR", 1, 100, "PPPPPP"),
        ("RRRRRRR", 4, 3, "PPP"),
        ("RRRRRRR", 5, 3, "PP"),
        ("RRRRRRR", None, 2, "-----PP"),
        ("RRRRRRR", 1, 0.5, "-----P"),  # the newest one is never stepped over
        ("RRRRRRw", 1, 3, "--PPP"),  # counted from what is ready
        ("R...RRR", 1, 3, "---PPP"),
        ("RRRRRRR.", 1, 2, "----PP"),
    ],
)
def test_next_split_steps_over_too_old(days: str, watermark: int | None, bound: float, expected: str) -> None:
    found = ask(days, watermark, catch_up=bound)
    assert shape(found) == expected
    assert isinstance(found, SplitFound)
    assert all("catch_up" in hole.reason for hole in found.split.holes)


def test_next_split_too_old_is_independent_of_now() -> None:
    assert ask("RRRRRRR", 1, catch_up=3) == ask("RRRRRRR", 1, NOW + 100 * DAY, catch_up=3)


@pytest.mark.parametrize(("bounds", "expected"), [((3,), "-PP"), ((3, 5), "---PP"), ((1,), "P"), ((9,), "-----PP")])
def test_next_split_too_old_counts_back_from_bound(bounds: tuple[int, ...], expected: str) -> None:
    assert shape(ask("RRRRRRR", catch_up=2, bounds=bounds)) == expected


def test_next_split_too_old_counts_back_from_lagged_end() -> None:
    assert shape(ask("RRRRRRR", catch_up=1, lag=2)) == "----P"


def test_full_split_does_not_look_further() -> None:
    seen = Imagined("RRRRR")
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START)
    decide(samples, None, SplitLimits(partitions=2), seen)
    assert seen.asked == [0, 1]


def test_waiting_for_partition_that_is_being_written() -> None:
    found = ask("RRw", 2)
    assert found == Waiting(START + 2 * DAY, "the partition 2024-01-03T00:00Z is not ready: it has no _SUCCESS")


def test_next_split_unfinished_without_gap_wait_is_waited_for() -> None:
    found = ask("wR")
    assert isinstance(found, Waiting)
    assert found.reason.endswith(", while 2024-01-02T00:00Z is ready")


def test_next_split_unfinished_with_gap_wait_becomes_gap() -> None:
    with pytest.raises(SampleGap, match="not ready: it has no _SUCCESS, while 2024-01-02T00:00Z is ready"):
        ask("wR", gaps=GapPolicy(60, "fail"))


def test_gap_is_waited_for_from_when_later_partition_became_ready() -> None:
    policy = GapPolicy(2 * 3600, "skip")
    found = ask(".R", gaps=policy)
    assert isinstance(found, Waiting)
    assert found.check_again_at == NOW + HOUR
    assert "missing, while 2024-01-02T00:00Z is ready; skip at 2024-06-01T01:00Z" in found.reason
    assert shape(ask(".R", gaps=policy, now=NOW + HOUR)) == "-P"


@pytest.mark.parametrize(("days", "hours"), [("wR", 1), ("WR", 2), (".R", 1)])
def test_next_split_unfinished_is_waited_for_after_its_last_write(days: str, hours: int) -> None:
    policy, end = GapPolicy(2 * 3600, "skip"), NOW + hours * HOUR
    found = ask(days, gaps=policy, now=end - timedelta(seconds=1))
    assert isinstance(found, Waiting)
    assert found.check_again_at == end
    assert shape(ask(days, gaps=policy, now=end)) == "-P"


def test_gap_fails_when_policy_says_so() -> None:
    with pytest.raises(SampleGap, match=r"2024-01-01T00:00Z is missing, while 2024-01-02T00:00Z is ready") as caught:
        ask(".R")
    assert caught.value.partition == START


def test_missing_partition_before_one_that_is_being_written() -> None:
    found = ask(".w", gaps=SKIP)
    assert isinstance(found, Waiting)
    assert found.partition_start == START
    assert "2024-01-02T00:00Z is there and not ready either" in found.reason


def test_next_split_nothing_after_watermark_is_none() -> None:
    found = ask("RR", 2)
    assert isinstance(found, CaughtUp)
    assert found.watermark == START + 2 * DAY
    assert not found.finished
    assert "nothing after 2024-01-03T00:00Z" in found.reason


def test_end_of_table() -> None:
    found = ask("RRR", 2, end=2)
    assert isinstance(found, CaughtUp)
    assert found.finished


def test_holes_at_end_of_table_are_no_split() -> None:
    assert isinstance(ask("RR..", 2, end=4, gaps=SKIP), CaughtUp)


def test_bad_partition_stops_split_that_starts_with_it() -> None:
    with pytest.raises(SampleCheckFailed):
        ask("RR!RR", 2)


@pytest.mark.parametrize("mark", "%#")
def test_next_split_unreadable_file_is_being_written_for_a_while(mark: str) -> None:
    written = NOW - HOUR
    found = ask(f"RR{mark}RR", 2, now=written + timedelta(seconds=599))
    assert isinstance(found, Waiting)
    assert found.partition_start == START + 2 * DAY
    assert found.check_again_at == written + timedelta(seconds=600)
    assert found.unfinished is not None
    assert "a.parquet has no footer" in found.reason
    assert "refused at 2024-05-31T23:10Z" in found.reason
    with pytest.raises(SampleDamaged) as refused:
        ask(f"RR{mark}RR", 2, now=written + timedelta(seconds=600))
    assert mark == "%" or refused.value.partition == START + 2 * DAY


@pytest.mark.parametrize("age", [timedelta(0), DAY])
def test_next_split_before_unfinished_file_is_trained(age: timedelta) -> None:
    assert shape(ask("RR%RR", now=NOW - HOUR + age)) == "PP"


@pytest.mark.parametrize(
    ("days", "limits", "expected"),
    [
        ("eeRR", {"partitions": 1}, "PPP"),
        ("ReR", {"partitions": 1}, "P"),
        ("ReeR", {}, "PPPP"),
        ("Ree", {}, "PPP"),
        ("eRR", {"rows": 10}, "PP"),
        (".e.R", {"partitions": 1, "gaps": SKIP}, "-P-P"),
    ],
)
def test_empty_partition_is_in_split_of_what_comes_after_it(
    days: str, limits: dict[str, object], expected: str
) -> None:
    assert shape(ask(days, **limits)) == expected


def test_next_split_after_empty_partition_waits_for_next() -> None:
    found = ask("Re", 1)
    assert isinstance(found, CaughtUp)
    assert (found.wait_for, found.watermark) == (START + 2 * DAY, START + DAY)
    writing = ask("Rew", 1)
    assert isinstance(writing, Waiting)
    assert writing.partition_start == START + 2 * DAY
    finished = ask("Re", 1, end=2)
    assert isinstance(finished, CaughtUp)
    assert finished.finished


def test_empty_partition_before_bound_is_stepped_over_with_holes() -> None:
    found = ask(".e.R", bounds=(3,), gaps=SKIP)
    assert isinstance(found, CaughtUp)
    assert [(hole.start, hole.end) for hole in found.holes] == [
        (START + n * DAY, START + (n + 1) * DAY) for n in range(3)
    ]
    assert "empty" in found.holes[1].reason


def test_time_before_table_is_hole_so_that_splits_tile() -> None:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START)
    found = decide(samples, START - timedelta(days=3.5), SplitLimits(), Imagined("R"))
    assert isinstance(found, SplitFound)
    assert found.split.start == START - timedelta(days=3.5)
    assert [(hole.start, hole.end) for hole in found.split.holes] == [(START - timedelta(days=3.5), START)]


# -- on disk -------------------------------------------------------------------------------------------------------


def test_next_split_same_question_has_same_answer(daily, now) -> None:
    daily.write(0, 1, 2)
    first = next_split(daily.samples, None, None, now, daily.root)
    again = next_split(daily.samples, None, None, now + 100 * DAY, daily.root)
    assert first == again
    assert isinstance(first, SplitFound)
    assert isinstance(again, SplitFound)
    assert first.split.digest == again.split.digest
    assert first.split.rows == 30
    assert [file.path for file in first.split.files][:1] == ["data/date=2024-01-01/a.parquet"]
    assert msgspec.json.decode(msgspec.json.encode(first), type=SplitFound) == first


def test_content_that_changes_changes_fingerprint(daily, now) -> None:
    daily.write(0, 1, at=now - DAY)
    before = next_split(daily.samples, None, None, now, daily.root).split
    daily.write(1, rows=11, at=now - DAY)
    after = next_split(daily.samples, None, None, now, daily.root).split
    assert before.digest != after.digest
    same = [a.fingerprint == b.fingerprint for a, b in zip(before.partitions, after.partitions, strict=True)]
    assert same == [True, False]


def test_listing_is_enough_to_know_partition_again(daily, now) -> None:
    daily.write(0, 1, at=now - DAY)
    (trained, grown) = next_split(daily.samples, None, None, now, daily.root).split.partitions
    daily.write(1, rows=11, at=now - DAY)
    seen = open_inventory(daily.samples, daily.root, now)
    assert seen.fingerprint(trained.start) == trained.fingerprint
    assert seen.fingerprint(grown.start) not in (None, grown.fingerprint)
    assert seen.fingerprint(START + 2 * DAY) is None
    assert seen._footers == {}


def test_newest_partition_is_last_one_that_is_ready(daily, now) -> None:
    assert open_inventory(daily.samples, daily.root, now).newest() is None
    daily.write(0, 1, 4)
    daily.write(5, marker=None)
    assert open_inventory(daily.samples, daily.root, now).newest() == START + 4 * DAY
    before = msgspec.structs.replace(daily.samples, end=START + 3 * DAY)
    assert open_inventory(before, daily.root, now).newest() == START + DAY


def test_table_that_does_not_exist_yet(daily, now) -> None:
    found = next_split(daily.samples, None, None, now, daily.root)
    assert isinstance(found, CaughtUp)
    assert "does not exist" in found.reason


def test_empty_folder_is_missing(daily, now) -> None:
    daily.folder(0).mkdir(parents=True)
    assert isinstance(next_split(daily.samples, None, None, now, daily.root), CaughtUp)


def test_neighbours_that_are_no_partitions_are_left_alone(daily, now) -> None:
    daily.write(0)
    for name in ("date=__HIVE_DEFAULT_PARTITION__", "date=2024-02-30", "_temporary", "date=2024-01-05.tmp"):
        (daily.root / "data" / name).mkdir()
    (daily.root / "data" / "date=2024-03-01").write_text("a file and no folder")
    found = next_split(daily.samples, START + DAY, None, now, daily.root)
    assert isinstance(found, CaughtUp)


PARTIAL = {
    "nothing yet": lambda whole: b"",
    "a magic": lambda whole: whole[:4],
    "no footer": lambda whole: whole[: len(whole) // 2],
    "half a footer": lambda whole: whole[:-20],
    "no magic at the end": lambda whole: whole[:-1],
    "a footer longer than the file": lambda whole: whole[-100:],
    "room that was reserved": lambda whole: whole[:-100] + bytes(100),
}


@pytest.mark.parametrize("partial", PARTIAL.values(), ids=PARTIAL.keys())
def test_next_split_any_partial_file_is_waited_for_then_refused(daily, partial) -> None:
    daily.write(0)
    file = daily.folder(0) / "a.parquet"
    file.write_bytes(partial(file.read_bytes()))
    written = datetime.now(UTC)
    found = next_split(daily.samples, None, None, written + timedelta(seconds=590), daily.root)
    assert isinstance(found, Waiting)
    assert "data/date=2024-01-01/a.parquet cannot be read as Parquet" in found.reason
    with pytest.raises(SampleDamaged, match=r"a\.parquet cannot be read as Parquet") as refused:
        next_split(daily.samples, None, None, written + timedelta(seconds=601), daily.root)
    assert refused.value.partition == START


def test_partition_with_its_marker_alone_has_no_rows(daily) -> None:
    daily.write(0, 2)
    daily.folder(1).mkdir()
    (daily.folder(1) / "_SUCCESS").touch()
    written = datetime.now(UTC)
    found = next_split(daily.samples, START + DAY, None, written, daily.root)
    assert isinstance(found, Waiting)
    assert "counts as empty at" in found.reason
    found = next_split(daily.samples, None, None, written + timedelta(seconds=601), daily.root)
    assert shape(found) == "PPP"
    assert isinstance(found, SplitFound)
    assert (found.split.partitions[1].rows, found.split.partitions[1].files, found.split.rows) == (0, (), 20)


def test_checks_name_file_column_expected_and_found(daily, now) -> None:
    daily.write(0)
    samples = msgspec.structs.replace(daily.samples, checks=Checks(columns={"x": "string", "y": None}))
    with pytest.raises(SampleCheckFailed) as caught:
        next_split(samples, None, None, now, daily.root)
    assert caught.value.partition == START
    assert caught.value.problems == (
        "a.parquet: column 'x': expected string, found int64",
        "a.parquet: column 'y': expected any type, found no such column",
    )


def test_files_that_are_no_parquet_have_no_rows(tmp_path: Path, now) -> None:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START, files="*.csv")
    (tmp_path / "t/2024-01-01").mkdir(parents=True)
    (tmp_path / "t/2024-01-01/a.csv").write_text("x\n1\n")
    (tmp_path / "t/2024-01-01/_SUCCESS").touch()
    found = next_split(samples, None, None, now, tmp_path)
    assert isinstance(found, SplitFound)
    assert (found.split.rows, found.split.bytes) == (None, 4)
