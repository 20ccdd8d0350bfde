"""Reading a split as Arrow record batches: a few windows in memory, a position that resumes exactly, ranks that share.

The stream of rows is `order.windows`, epoch after epoch; a batch is `batch_size` rows of it, wherever windows and
epochs begin and end. Batch n, counted from where this reading began, belongs to rank n modulo `world_size`. A position
is the number of rows that all ranks together have read, so it means the same to one rank as to eight.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import groupby
from typing import Any

from trainflow.counting import counted
from trainflow.errors import InputError, SampleUnreadable
from trainflow.samples.footers import unreadable_file
from trainflow.samples.order import Window, permutation, windows
from trainflow.samples.split import SampleFile, Split
from trainflow.samples.storage import Storage, open_storage

_THREADS = 2
_WINDOWS_AHEAD = 32
_ROWS_AHEAD = 131_072
_FILES_KEPT_OPEN = 8
_SMALL_FILE_BYTES = 1 << 20


class Batches(Iterator[Any]):
    """An iterator of `pyarrow.RecordBatch`. Made by `Split.batches`; ends its threads at the end or with `close`."""

    def __init__(
        self,
        split: Split,
        *,
        columns: list[str] | None,
        batch_size: int,
        seed: int | None,
        rank: int,
        world_size: int,
        position: Mapping[str, Any] | None,
        epochs: int = 1,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} of world_size {world_size}: the rank must be in 0 … world_size - 1")
        if epochs < 1:
            raise InputError(f"epochs is {epochs}; it must be at least 1")
        stream = _Stream(split, seed, epochs)
        self._stamp = {"split": split.digest, "seed": seed}
        self._epoch_rows = stream.epoch_rows
        #: rows of the whole split, as often as there are epochs
        self.total_rows = stream.epoch_rows * epochs
        self._read = first = self._row_of(position)
        self._batch_size, self._before = batch_size, rank * batch_size
        self._step = batch_size * world_size
        self._next = first + self._before
        low = self._next
        wanted = (window for window in stream.windows(low) if overlaps(window, low, batch_size, self._step))
        self._windows = _ReadAhead(_Source(split, columns), wanted)
        self._window: tuple[Window, list[Any]] | None = None

    @property
    def schema(self) -> Any:
        """Arrow schema of the batches: the first file's."""
        return self._windows.schema

    @property
    def position(self) -> dict[str, Any]:
        """Where to go on after the batch that was given last; JSON. Right when every rank has had as many batches."""
        return {**self._stamp, "row": self._read}

    @property
    def epoch(self) -> int:
        """How often all rows of the split have been read."""
        return self._read // self._epoch_rows if self._epoch_rows else 0

    def __next__(self) -> Any:
        low = self._next
        if low >= self.total_rows:
            self._read = self.total_rows
            self.close()
            raise StopIteration
        batch = self._rows(low, min(low + self._batch_size, self.total_rows))
        self._next = low + self._step
        self._read = min(self._next - self._before, self.total_rows)
        return batch

    def close(self) -> None:
        """Stop reading ahead and close the files; what was given stays valid."""
        self._window = None
        self._windows.close()

    def _row_of(self, position: Mapping[str, Any] | None) -> int:
        if position is None:
            return 0
        for name, mine in self._stamp.items():
            if position.get(name, "nothing") != mine:
                raise InputError(
                    f"this position belongs to another {name}: it says {position.get(name, 'nothing')!r}, "
                    f"this reading has {mine!r}; start the split again, or read with the {name} it was saved with"
                )
        row = position.get("row")
        if not isinstance(row, int) or not 0 <= row <= self.total_rows:
            raise InputError(f"this position is at row {row!r} of {self.total_rows}; start the split again")
        return row

    def _rows(self, low: int, high: int) -> Any:
        """One batch: rows `[low, high)` of the stream."""
        pieces: list[Any] = []
        while low < high:
            while self._window is None or self._window[0].end <= low:
                self._window = None  # freed before the next one is waited for
                self._window = self._windows.take()
            window, batches = self._window
            stop = min(high, window.end)
            pieces += _slices(batches, low - window.offset, stop - window.offset)
            low = stop
        return pieces[0] if len(pieces) == 1 else _join(pieces)


class _Stream:
    """Passes over a split, laid end to end."""

    def __init__(self, split: Split, seed: int | None, epochs: int) -> None:
        self._split = split
        self._seed = seed
        self._epochs = epochs
        self._first = windows(split, seed)
        self.epoch_rows = self._first[-1].end if self._first else 0

    def windows(self, row: int) -> Iterator[Window]:
        """From the epoch on that has this row."""
        begin = row // self.epoch_rows if self.epoch_rows else self._epochs
        for epoch in range(begin, self._epochs):
            for window in windows(self._split, self._seed, epoch) if epoch else self._first:
                yield replace(window, offset=window.offset + epoch * self.epoch_rows)


def overlaps(window: Window, first: int, batch_size: int, step: int) -> bool:
    """Whether a window has rows of one of the batches that start at `first`, `first + step`, …"""
    number = max(0, (window.offset - batch_size - first) // step + 1)
    return first + number * step < window.end


class _ReadAhead:
    """Windows one after the other, the next ones being read by threads meanwhile (decoding holds no Python lock)."""

    def __init__(self, source: _Source, wanted: Iterator[Window]) -> None:
        self._source = source
        self._wanted = wanted
        self._pending: deque[tuple[Window, Future[list[Any]]]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def schema(self) -> Any:
        return self._source.schema

    def take(self) -> tuple[Window, list[Any]]:
        """The next window and its rows."""
        self._fill()
        window, reading = self._pending.popleft()
        found = window, reading.result()
        self._fill()
        return found

    def close(self) -> None:
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


@dataclass
class _OpenFile:
    """A Parquet file, and what only closing needs."""

    parquet: Any
    schema: Any
    source: Any

    def close(self) -> None:
        self.parquet.close()
        if hasattr(self.source, "close"):
            self.source.close()


class _Source:
    """The files of a split, a few of them open. Every thread has its own, for a Parquet reader is for one at a time."""

    def __init__(self, split: Split, columns: list[str] | None) -> None:
        self._files = split.files
        self._columns = columns
        self._reading = split.reading
        self._lock = threading.Lock()
        self._storage: Storage | None = None
        self._idle: OrderedDict[int, _OpenFile] = OrderedDict()
        self._schema: Any = None

    @property
    def schema(self) -> Any:
        """Of the first file, the columns that were asked for."""
        if self._schema is None:
            with self._opened(0) as file:
                found = file.schema
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
        while self._idle:
            self._idle.popitem()[1].close()

    def _read_groups(self, opened: _OpenFile, file: int, groups: list[int]) -> Any:
        schema, path = self.schema, self._files[file].path
        same = opened.schema.equals(schema)
        if not same:
            lacking = [name for name in schema.names if name not in opened.schema.names]
            if lacking:
                raise SampleUnreadable(
                    f"{path}: column {lacking[0]!r} is missing; the split's first file, {self._files[0].path}, has it. "
                    "Ask for columns that every partition has, or check them with samples.checks.columns"
                )
        try:
            table = opened.parquet.read_row_groups(
                groups,
                columns=None if same else schema.names,
                use_threads=self._files[file].size_bytes > _SMALL_FILE_BYTES,  # dealing out little work costs more
            )
        except Exception as error:
            raise unreadable_file(path, error) from error
        if not same and not table.schema.equals(schema):
            table = _cast(table.select(schema.names), schema, path)
        return table.replace_schema_metadata(schema.metadata)

    @contextmanager
    def _opened(self, number: int) -> Iterator[_OpenFile]:
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

    def _open_file(self, number: int) -> _OpenFile:
        import pyarrow.parquet as pq

        file = self._files[number]
        if self._storage is None:
            self._storage = open_storage(file.path, self._reading.storage_options, self._reading.root)
        try:
            source = self._storage.open_parquet(file.path)
            parquet = pq.ParquetFile(source)
        except FileNotFoundError as error:
            said = f"{file.path} is gone since the split was made; clear the task that made the split"
            raise SampleUnreadable(said) from error
        except Exception as error:
            raise unreadable_file(file.path, error) from error
        _check_unchanged(file, parquet.metadata)
        return _OpenFile(parquet, parquet.schema_arrow, source)


def _check_unchanged(file: SampleFile, metadata: Any) -> None:
    found = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if found != file.row_groups:
        raise SampleUnreadable(
            f"{file.path} has changed since the split was made: expected {file.rows} rows in "
            f"{counted(len(file.row_groups), 'row group')}, found {sum(found)} in {len(found)}; "
            "clear the task that made the split"
        )


def _select(schema: Any, columns: list[str]) -> Any:
    import pyarrow as pa

    for name in columns:
        if name not in schema.names:
            near = get_close_matches(name, schema.names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(schema.names)}"
            raise InputError(f"the samples have no column {name!r}; {hint}")
    return pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)


def _cast(table: Any, schema: Any, path: str) -> Any:
    """`table` with the types of the first file, where nothing is lost by it."""
    import pyarrow as pa

    try:
        return table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        differing = [
            f"column {field.name!r} is {found.type} and was {field.type}"
            for field, found in zip(schema, table.schema, strict=True)
            if field.type != found.type
        ]
        said = "; ".join(differing) or str(error)
        raise SampleUnreadable(
            f"{path}: {said} in the first file of the split, and its values do not fit: {error}. "
            "Check types with samples.checks.columns, so that such a partition is stopped before training"
        ) from error


def _slices(batches: list[Any], low: int, high: int) -> Iterator[Any]:
    """Rows `[low, high)` of batches laid end to end, without copying."""
    for batch in batches:
        if high <= 0:
            return
        if low < batch.num_rows:
            start = max(low, 0)
            yield batch.slice(start, min(high, batch.num_rows) - start)
        low, high = low - batch.num_rows, high - batch.num_rows


def _join(pieces: list[Any]) -> Any:
    import pyarrow as pa

    table = pa.Table.from_batches(pieces).combine_chunks()
    batches = table.to_batches()
    if len(batches) != 1:
        raise InputError(
            "a batch does not fit into one Arrow array (more than 2 GiB of text): use a smaller batch_size"
        )
    return batches[0]


def warm_up() -> None:
    """Import all that reading batches and looking into them imports: for a process that tasks are forked from."""
    import pyarrow as pa
    import pyarrow.parquet

    pa.array([0]).to_numpy()  # its first array imports pandas, where that is installed: half a second
