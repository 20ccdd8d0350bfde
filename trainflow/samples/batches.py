"""Reading a split as Arrow record batches: one window in memory, a position that resumes exactly, ranks that share.

The stream of rows is `order.windows`; a batch is `batch_size` rows of it, wherever windows begin and end. Batch n,
counted from where this reading began, belongs to rank n modulo `world_size`. A position is the number of rows that all
ranks together have read, so it means the same to one rank as to eight.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import groupby
from typing import Any

from trainflow.errors import InputError, SampleUnreadable
from trainflow.samples.footers import unreadable_file
from trainflow.samples.order import Window, permutation, windows
from trainflow.samples.split import SampleFile, Split
from trainflow.samples.storage import Storage, open_storage

_FILES_KEPT_OPEN = 16


class Batches(Iterator[Any]):
    """An iterator of `pyarrow.RecordBatch`. Made by `Split.batches`; closes its files at the end or with `close`."""

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
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} of world_size {world_size}: the rank must be in 0 … world_size - 1")
        self._windows = windows(split, seed)
        self._source = _Source(split, columns)
        self._stamp = {"split": split.digest, "seed": seed}
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        #: rows of the whole split
        self.total_rows = self._windows[-1].end if self._windows else 0
        self._first = self._row_of(position)
        self._read = self._first
        self._next = self._first + rank * batch_size
        self._window = 0
        self._loaded: tuple[int, list[Any]] = (-1, [])

    @property
    def schema(self) -> Any:
        """Arrow schema of the batches: the first file's."""
        return self._source.schema

    @property
    def position(self) -> dict[str, Any]:
        """Where to go on after the batch that was given last; JSON. Right when every rank has had as many batches."""
        return {**self._stamp, "row": self._read}

    def __next__(self) -> Any:
        low = self._next
        if low >= self.total_rows:
            self._read = self.total_rows
            self.close()
            raise StopIteration
        high = min(low + self._batch_size, self.total_rows)
        batch = self._rows(low, high)
        step = self._batch_size * self._world_size
        self._next = low + step
        self._read = min(low - self._rank * self._batch_size + step, self.total_rows)
        return batch

    def close(self) -> None:
        """Close the files; what was given stays valid."""
        self._loaded = (-1, [])
        self._source.close()

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
            while self._windows[self._window].end <= low:
                self._window += 1
            window = self._windows[self._window]
            stop = min(high, window.end)
            pieces += _slices(self._load(self._window), low - window.offset, stop - window.offset)
            low = stop
        return pieces[0] if len(pieces) == 1 else _join(pieces)

    def _load(self, number: int) -> list[Any]:
        if self._loaded[0] != number:
            self._loaded = (-1, [])  # free the one before, so that two are never in memory
            self._loaded = (number, self._source.read(self._windows[number]))
        return self._loaded[1]


class _Source:
    """The open files of a split, a few at a time."""

    def __init__(self, split: Split, columns: list[str] | None) -> None:
        self._files = split.files
        self._columns = columns
        self._reading = split.reading
        self._storage: Storage | None = None
        self._open: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._schema: Any = None

    @property
    def schema(self) -> Any:
        if self._schema is None:
            found = self._parquet(0).schema_arrow
            if self._columns is not None:
                found = self._select(found, self._columns)
            self._schema = found
        return self._schema

    def read(self, window: Window) -> list[Any]:
        """The rows of a window in their order, as record batches."""
        import pyarrow as pa

        schema, tables = self.schema, []
        for file, groups in groupby(window.groups, key=lambda group: group.file):
            tables.append(self._read_groups(file, [group.group for group in groups], schema))
        table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        if window.key is not None:
            table = table.combine_chunks().take(pa.array(permutation(window)))
        batches: list[Any] = table.to_batches()
        return batches

    def close(self) -> None:
        while self._open:
            self._close(self._open.popitem()[1])

    def _read_groups(self, file: int, groups: list[int], schema: Any) -> Any:
        parquet, path = self._parquet(file), self._files[file].path
        names = schema.names
        lacking = [name for name in names if name not in parquet.schema_arrow.names]
        if lacking:
            raise SampleUnreadable(
                f"{path}: column {lacking[0]!r} is missing; the split's first file, {self._files[0].path}, has it. "
                "Ask for columns that every partition has, or check them with samples.checks.columns"
            )
        try:
            table = parquet.read_row_groups(groups, columns=names)
        except Exception as error:
            raise unreadable_file(path, error) from error
        if table.schema.equals(schema):
            return table.replace_schema_metadata(schema.metadata)
        return _cast(table.select(names), schema, path)

    def _parquet(self, number: int) -> Any:
        kept = self._open.get(number)
        if kept is None:
            kept = self._open_file(number)
            while len(self._open) >= _FILES_KEPT_OPEN:
                self._close(self._open.popitem(last=False)[1])
            self._open[number] = kept
        self._open.move_to_end(number)
        return kept[0]

    def _open_file(self, number: int) -> tuple[Any, Any]:
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
        self._check_unchanged(file, parquet.metadata)
        return parquet, source

    @staticmethod
    def _check_unchanged(file: SampleFile, metadata: Any) -> None:
        found = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        if found != file.row_groups:
            raise SampleUnreadable(
                f"{file.path} has changed since the split was made: expected {file.rows} rows in "
                f"{len(file.row_groups)} row groups, found {sum(found)} in {len(found)}; "
                "clear the task that made the split"
            )

    @staticmethod
    def _close(kept: tuple[Any, Any]) -> None:
        parquet, source = kept
        parquet.close()
        if hasattr(source, "close"):
            source.close()

    @staticmethod
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
