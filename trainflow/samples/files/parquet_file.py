"""A Parquet file, opened: the one place where that is done, whatever it is opened for.

Spark's INT96 timestamps are read as microseconds, which is what it writes: nanoseconds end in the year 2262, and a
later moment comes out as one of 1816. Checksums of pages are verified where a file has them: a flipped byte is an error
then, and not another value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from trainflow.errors import SampleDamaged, SampleUnreadable
from trainflow.observability.redaction import redact_text
from trainflow.samples.files.fingerprint import Content, read_content
from trainflow.storage.store import FileStatus, Storage

INT96_UNIT = "us"


class OpenFile(msgspec.Struct, frozen=True):
    """A `pyarrow.parquet.ParquetFile`, its Arrow schema, and the content that was found when it was opened. `status`:
    of the file before that; None where nothing of what is read can change any more."""

    parquet: Any
    schema: Any
    source: Any
    content: Content
    status: FileStatus | None = None

    def close(self) -> None:
        """Close the reader and the file."""
        self.parquet.close()
        close_source(self.source)


def open_file(storage: Storage, path: str) -> OpenFile:
    """Open a Parquet file; its footer is read once, for its digest and all else. Raises SampleUnreadable naming the
    file; FileNotFoundError when it is gone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = None
    try:
        source, status = _source(storage, path), storage.status(path)
        content = read_content(source)
        metadata = None if content.tail is None else pq.read_metadata(pa.BufferReader(content.tail))
        if content.whole:  # nothing of it can change any more
            close_source(source)
            source, status = pa.BufferReader(content.tail), None
        parquet = pq.ParquetFile(
            source, metadata=metadata, coerce_int96_timestamp_unit=INT96_UNIT, page_checksum_verification=True
        )
    except (FileNotFoundError, SampleUnreadable):
        close_source(source)
        raise
    except Exception as error:
        close_source(source)
        raise unreadable_file(path, error) from error
    return OpenFile(parquet, parquet.schema_arrow, source, content._replace(tail=None), status)


@contextmanager
def opened(storage: Storage, path: str) -> Iterator[OpenFile]:
    """A file for a moment. Raises SampleUnreadable naming it, also for what cannot be read of it."""
    import pyarrow as pa

    file = None
    try:
        file = open_file(storage, path)
        yield file
    except SampleUnreadable:
        raise
    except (OSError, pa.ArrowException) as error:
        raise unreadable_file(path, error) from error
    finally:
        if file is not None:
            file.close()


def finer_than_read(file: OpenFile, storage: Storage, path: str) -> tuple[str, ...]:
    """Columns with INT96 moments that have a part smaller than a microsecond, which reading would drop. Spark has none;
    of other writers' files the columns are read, for INT96 has no statistics."""
    metadata = file.parquet.metadata
    leaves = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    names = sorted({leaf.path.split(".")[0] for leaf in leaves if leaf.physical_type == "INT96"})
    if not names or b"org.apache.spark.version" in (metadata.metadata or {}):
        return ()
    import pyarrow.parquet as pq

    source = _source(storage, path)
    found: dict[str, str] = {}
    try:
        with pq.ParquetFile(source) as finer:
            for number in range(metadata.num_row_groups):
                for name in names:
                    pair = (each.read_row_group(number, columns=[name]) for each in (file.parquet, finer))
                    moment = _first_dropped(*(table.column(0) for table in pair))
                    if moment is not None:
                        found.setdefault(name, moment)
    finally:
        close_source(source)
    return tuple(
        f"column {name!r} has {moment} as INT96, which is read as microseconds: have it written as timestamp[ns]"
        for name, moment in found.items()
    )


def _first_dropped(micros: Any, nanos: Any) -> str | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    from trainflow.samples.columns.cast import leaves

    for coarse, fine in zip(leaves(micros.combine_chunks()), leaves(nanos.combine_chunks()), strict=True):
        if pa.types.is_timestamp(fine.type) and fine.type.unit == "ns":
            # moments that nanoseconds cannot hold wrap around, and so does this
            rest = pc.subtract(fine.cast(pa.int64()), pc.multiply(coarse.cast(pa.int64()), 1000))
            dropped = fine.filter(pc.fill_null(pc.not_equal(rest, 0), False))
            if len(dropped):
                return str(dropped[:1].cast(pa.string())[0])
    return None


def _source(storage: Storage, path: str) -> Any:
    """An open file that `pyarrow.parquet.ParquetFile` takes: Arrow reads a local one without Python."""
    local = storage.local_path(path)
    if local is None:
        return storage.open(path)
    from pyarrow import OSFile

    return OSFile(str(local))


def close_source(source: Any) -> None:
    """What was opened, if it came to that."""
    if hasattr(source, "close"):
        source.close()


def unreadable_file(path: str, error: BaseException) -> SampleUnreadable:
    """A file that Parquet refuses, in words."""
    said = redact_text(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    problem = f"{redact_text(path)} cannot be read as Parquet: {said.rstrip('.')}"
    if not _is_about_content(error):
        return SampleUnreadable(f"{problem}; check that the file is there and may be read")
    return damaged_file(problem)


def damaged_file(problem: str) -> SampleDamaged:
    """A file that is not whole; `problem` is a clause that names it."""
    return SampleDamaged(
        f"{problem}; it is damaged or was not completely written: have it written again (and make sure the marker is "
        "written after the data), or leave the partition out: 'trainflow resume PIPELINE --skip'",
        problem=problem,
    )


def _is_about_content(error: BaseException) -> bool:
    """Whether Parquet refuses what it has read, as against a storage that refuses to show it: what Arrow says of a
    footer that does not parse is an OSError without a number."""
    import pyarrow as pa

    return isinstance(error, pa.ArrowInvalid) or (type(error) is OSError and error.errno is None)
