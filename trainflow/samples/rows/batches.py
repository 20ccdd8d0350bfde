"""Reading a split as Arrow record batches: a few windows in memory, a position that resumes exactly, ranks that share.

The stream of rows is `order.windows`, epoch after epoch; a batch is `batch_size` rows of it, wherever windows and
epochs begin and end, and at the end of the stream what is left (`order` deals the rows out to ranks). A position is
the number of rows that all ranks together have read, so it means the same to one rank as to eight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from trainflow.errors import InputError
from trainflow.samples.rows.order import RankRows, Window, rows_of_step, share, windows
from trainflow.samples.rows.reading import ReadAhead, Source
from trainflow.samples.splits.split_content import SplitContent


class Batches(Iterator[Any]):
    """An iterator of `pyarrow.RecordBatch`. Made by `Split.batches`; ends its threads at the end or with `close`."""

    def __init__(
        self,
        split: SplitContent,
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
        self._batch_size, self._rank, self._ranks = batch_size, rank, world_size
        mine = RankRows(first, self.total_rows, batch_size, rank, world_size)
        wanted = (window for window in stream.windows(first) if mine.overlaps(window))
        self._windows = ReadAhead(Source(split, columns), wanted)
        self._window: tuple[Window, list[Any]] | None = None

    @property
    def schema(self) -> Any:
        """Arrow schema of the batches, known before the first: the columns of all files of the split, as types that
        hold every value. The same for every rank, position and seed."""
        return self._windows.schema

    @property
    def position(self) -> dict[str, Any]:
        """Where to go on after the batch that was given last; JSON. The same on every rank after as many
        batches."""
        return {**self._stamp, "row": self._read}

    @property
    def unread_rows(self) -> int:
        """Rows of the split that were not given out yet, in any epoch; those before the position count as read."""
        return max(0, self._epoch_rows - self._read)

    @property
    def epoch(self) -> int:
        """How often all rows of the split have been read."""
        return self._read // self._epoch_rows if self._epoch_rows else 0

    def __next__(self) -> Any:
        begin = self._read
        if begin >= self.total_rows:
            self.close()
            raise StopIteration
        rows = rows_of_step(self.total_rows - begin, self._batch_size, self._ranks)
        low, high = share(rows, self._rank, self._ranks)
        batch = self._rows(begin + low, begin + high)
        self._read = begin + rows
        return batch

    def read_all(self) -> Any:
        """All that is left as one `pyarrow.Table`, in memory: for libraries that train on a whole split at once."""
        import pyarrow as pa

        return pa.Table.from_batches(self, schema=self.schema)

    def read_pandas(self, **options: Any) -> Any:
        """All that is left as one `pandas.DataFrame`; `options` of `pyarrow.Table.to_pandas`."""
        return self.read_all().to_pandas(**options)

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
        if not pieces:
            return _without_rows(self.schema)
        return pieces[0] if len(pieces) == 1 else _join(pieces)


class _Stream:
    """Passes over a split, laid end to end."""

    def __init__(self, split: SplitContent, seed: int | None, epochs: int) -> None:
        self._split = split
        self._seed = seed
        self._epochs = epochs
        self._first = windows(split, seed)
        self.epoch_rows = self._first[-1].end if self._first else 0

    def windows(self, row: int) -> Iterator[Window]:
        """Windows from the epoch on that has this row."""
        begin = row // self.epoch_rows if self.epoch_rows else self._epochs
        for epoch in range(begin, self._epochs):
            for window in windows(self._split, self._seed, epoch) if epoch else self._first:
                yield replace(window, offset=window.offset + epoch * self.epoch_rows)


def _slices(batches: list[Any], low: int, high: int) -> Iterator[Any]:
    """Rows `[low, high)` of batches laid end to end, without copying."""
    for batch in batches:
        if high <= 0:
            return
        if low < batch.num_rows:
            start = max(low, 0)
            yield batch.slice(start, min(high, batch.num_rows) - start)
        low, high = low - batch.num_rows, high - batch.num_rows


def _without_rows(schema: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


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
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    # the first array imports pandas, where that is installed, and the first of NumPy's its masked ones: half a second,
    # and 18 ms
    pa.array(np.zeros(1)).to_numpy()
