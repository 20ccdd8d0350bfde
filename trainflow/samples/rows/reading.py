"""The rows of a split's files: windows of them, read ahead by threads, as the columns of the split."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from trainflow.errors import SamplesRefused, SampleUnreadable
from trainflow.identifiers import did_you_mean
from trainflow.samples.columns.path_columns import value_as
from trainflow.samples.files.file_binding import open_bound, raise_if_changed, raise_if_written_over
from trainflow.samples.files.parquet_file import OpenFile, unreadable_file
from trainflow.samples.rows.order import Window, permutation
from trainflow.samples.splits.split_content import SampleFile, SplitContent
from trainflow.storage.store import Storage
from trainflow.storage.urls import open_storage

_THREADS = 2
_WINDOWS_AHEAD = 32
_ROWS_AHEAD = 131_072
_FILES_KEPT_OPEN = 8
_SMALL_FILE_BYTES = 1 << 20


class ReadAhead:
    """Windows one after the other, the next ones being read by threads meanwhile (decoding holds no Python lock)."""

    def __init__(self, source: Source, wanted: Iterator[Window]) -> None:
        self._source = source
        self._wanted = wanted
        self._pending: deque[tuple[Window, Future[list[Any]]]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def schema(self) -> Any:
        """Arrow schema of the tables."""
        return self._source.schema

    def take(self) -> tuple[Window, list[Any]]:
        """The next window and its rows."""
        self._fill()
        window, reading = self._pending.popleft()
        found = window, reading.result()
        self._fill()
        return found

    def close(self) -> None:
        """End the threads and close the files."""
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._source.close()

    def _fill(self) -> None:
        """Keep one window ahead, or as many small ones as make `_ROWS_AHEAD`."""
        if self._pool is None:
            _ = self.schema  # from the first file, before several threads ask
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="batches")
        while not self._pending or sum(window.rows for window, _ in self._pending) < _ROWS_AHEAD:
            window = next(self._wanted, None) if len(self._pending) < _WINDOWS_AHEAD else None
            if window is None:
                return
            self._pending.append((window, self._pool.submit(self._source.read, window)))


class Source:
    """The files of a split, a few of them open. Every thread has its own, for a Parquet reader is for one at a time."""

    def __init__(self, split: SplitContent, columns: list[str] | None) -> None:
        self._split = split
        self._files = split.files
        self._columns = columns
        self._reading = split.reading
        self._lock = threading.Lock()
        self._storage: Storage | None = None
        self._idle: OrderedDict[int, OpenFile] = OrderedDict()
        self._schema: Any = None

    @property
    def schema(self) -> Any:
        """The columns of the split that were asked for."""
        if self._schema is None:
            found = self._split_schema()
            self._schema = found if self._columns is None else _select(found, self._columns)
        return self._schema

    def read(self, window: Window) -> list[Any]:
        """The rows of a window in their order, as record batches."""
        import pyarrow as pa

        tables = []
        for file, groups in groupby(window.groups, key=lambda group: group.file):
            with self._opened(file) as opened:
                tables.append(self._read_groups(opened, file, [group.group for group in groups]))
        table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        if window.key is not None:
            table = table.combine_chunks().take(pa.array(permutation(window)))
        batches: list[Any] = table.to_batches()
        return batches

    def close(self) -> None:
        """Close the files that no thread reads."""
        while self._idle:
            self._idle.popitem()[1].close()

    def _split_schema(self) -> Any:
        """Schema as the split says it; of one that does not, from the footers of all its files."""
        import pyarrow as pa

        from trainflow.samples.columns.types import schema_of
        from trainflow.samples.columns.unify import ColumnConflict, FileColumns, UnifiedColumns

        if self._split.columns:
            return schema_of(self._split.columns)
        unified = UnifiedColumns("strict", (), lambda path, wanted: None)  # reading compares every value anyway
        for number, file in enumerate(self._files):
            with self._opened(number) as opened:
                columns = [pa.field(name, pa.string()) for name, _ in file.path_columns]
                found = FileColumns(file.path, pa.schema([*opened.schema, *columns]))
            try:
                unified.add([found])
            except ColumnConflict as error:
                raise SampleUnreadable(f"{error}. {error.remedy}") from error
        return unified.schema

    def _read_groups(self, opened: OpenFile, file: int, groups: list[int]) -> Any:
        schema, known = self.schema, self._files[file]
        same = opened.schema.equals(schema)
        names = None if same else [name for name in schema.names if name in opened.schema.names]
        try:
            table = opened.parquet.read_row_groups(
                groups,
                columns=names,
                use_threads=known.size_bytes > _SMALL_FILE_BYTES,  # dealing out little work costs more
            )
        except Exception as error:
            if self._storage is not None:
                raise_if_changed(self._storage, known, error)
            raise unreadable_file(known.path, error) from error
        if self._storage is not None:
            raise_if_written_over(self._storage, known, opened)
        if same:
            return table.replace_schema_metadata(None)
        return _as_columns(table, schema, known, sum(known.row_groups[group] for group in groups))

    @contextmanager
    def _opened(self, number: int) -> Iterator[OpenFile]:
        """The file, for this thread alone."""
        with self._lock:
            file = self._idle.pop(number, None)
        if file is None:
            file = self._open_file(number)
        yield file
        with self._lock:
            surplus = [self._idle.pop(number)] if number in self._idle else []
            self._idle[number] = file
            if len(self._idle) > _FILES_KEPT_OPEN:
                surplus.append(self._idle.popitem(last=False)[1])
        for old in surplus:
            old.close()

    def _open_file(self, number: int) -> OpenFile:
        file = self._files[number]
        if self._storage is None:
            self._storage = open_storage(file.path, self._reading.storage_options, self._reading.root)
        return open_bound(self._storage, file)


def _select(schema: Any, columns: list[str]) -> Any:
    import pyarrow as pa

    for name in columns:
        if name not in schema.names:
            hint = did_you_mean(name, schema.names, otherwise="there are")
            raise SamplesRefused(f"the samples have no column {name!r}{hint}")
    return pa.schema([schema.field(name) for name in columns])


def _as_columns(table: Any, schema: Any, file: SampleFile, rows: int) -> Any:
    """The table with the columns of the split. What the file lacks is in its path, or null."""
    import pyarrow as pa

    from trainflow.samples.columns.cast import InexactCast, cast

    found, in_path = set(table.column_names), dict(file.path_columns)
    columns = []
    for field in schema:
        if field.name in in_path and field.name not in found:
            columns.append(pa.repeat(value_as(in_path[field.name], field.type)[0], rows))
            continue
        if field.name not in found:
            columns.append(pa.nulls(rows, field.type))
            continue
        column = table.column(field.name)
        try:
            columns.append(cast(column, field.type))
        except (InexactCast, pa.ArrowException) as error:
            raise SampleUnreadable(
                f"{file.path}: column {field.name!r} is {column.type}, and {field.type} in the split: {error} does not "
                "fit; the file has changed since the split was made: clear the task that made the split"
            ) from error
    return pa.table(columns, schema=schema)
