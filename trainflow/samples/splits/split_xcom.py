"""A split on its way from the samples task to those after it: small ones inline, large ones as a Parquet manifest by
reference. Beside it is said when that was, what is ready beyond it, and whether it repairs a hole.

The manifest's name is a digest of all that it says (`Split.digest` leaves out where files are), so writing it twice
writes the same, and a reader proves that it got what was handed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.clock import elapsed_seconds
from trainflow.errors import SampleUnreadable
from trainflow.identifiers import canonical_json, digest
from trainflow.observability.redaction import redact_text, texts_of
from trainflow.samples.grid import Grid
from trainflow.samples.partitions import end_of
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import SampleFile, partition_of
from trainflow.storage.urls import open_storage

if TYPE_CHECKING:
    from trainflow.samples.throughput import Lag

#: a split whose JSON is larger goes by reference; MySQL's smallest text column holds 64 KiB
INLINE_BYTES = 48 * 1024
#: what is ready beyond the split, for the mirror
LAG_PARTITIONS = "lag_partitions"
LAG_SECONDS = "lag_seconds"
_AT = "handed_over_at"
_GRID = "grid"
_REPAIR = "repair"
_ANY_FORMAT = "trainflow.split/"
_FORMAT = f"{_ANY_FORMAT}1"
_HEADER = b"trainflow.split"
_OF_PARTITION = ("partition_start", "partition_fingerprint", "partition_hint")
_OF_FILE = ("path", "size_bytes", "rows", "fingerprint", "row_groups", "path_columns", "hint")


class SplitOfOtherVersion(SampleUnreadable):
    """A split that another version of trainflow handed over, and that this one cannot read."""


def split_to_xcom(
    split: Split,
    *,
    spill_url: str,
    storage_options: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> dict[str, Any]:
    """The value to hand over, typed JSON: a summary, and the split itself (`split`) or where its manifest is (`uri`).

    `spill_url` is a folder (an fsspec URL, an absolute path, or relative to `root`) that the receiver reaches too; it
    is used only for large splits. Raises SampleUnreadable when the manifest cannot be written.
    """
    value = {"format": _FORMAT, "digest": split.digest, "document": _document(split), **summary(split)}
    inline = {**value, "split": msgspec.to_builtins(split)}
    if len(canonical_json(inline)) <= INLINE_BYTES:
        return inline
    uri = f"{spill_url.rstrip('/')}/split-{value['document'].removeprefix('sha256:')}.parquet"
    open_storage(uri, storage_options or {}, root).replace(uri, _to_parquet(split))
    return {**value, "uri": uri}


def split_from_xcom(
    value: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> Split:
    """The split that `split_to_xcom` handed over. `storage_options` and `root` are for the manifest; give the split's
    own with `Split.reached_by`. Raises SampleUnreadable when the manifest is gone or is not what was handed over, and
    SplitOfOtherVersion."""
    found = value.get("format")
    if found != _FORMAT:
        if str(found).startswith(_ANY_FORMAT):
            raise _of_other_version("the split in the XCom", f"its format is {found!r}, here it is {_FORMAT!r}")
        raise SampleUnreadable(
            f"this is no split: expected format {_FORMAT!r}, found {found!r}; "
            "give the output of the task that checks the samples"
        )
    if "split" in value:
        split, where = _converted(value["split"]), "the split in the XCom"
    else:
        uri = str(value["uri"])
        where = f"the manifest {redact_text(uri, texts_of(storage_options or {}))}"
        data = open_storage(uri, storage_options or {}, root).read(uri)
        split = _from_parquet(data, where)
    found = _document(split)
    if found != value["document"] and "split" in value and digest(canonical_json(value["split"])) == value["document"]:
        raise _of_other_version(where, "it has other fields")
    if found != value["document"]:
        raise SampleUnreadable(
            f"{where} is not what was handed over: expected {value['document']}, found {found}; "
            "clear the task that made the split"
        )
    return split


def _converted(value: Any) -> Split:
    try:
        return msgspec.convert(value, Split)
    except msgspec.ValidationError as error:
        raise _of_other_version("the split in the XCom", str(error)) from None


def _of_other_version(where: str, how: str) -> SplitOfOtherVersion:
    return SplitOfOtherVersion(f"{where} was handed over by another version of trainflow, and cannot be read ({how})")


def with_context(
    xcom: Mapping[str, Any], now: datetime, lag: Lag | None, *, repair: bool, grid: Grid
) -> dict[str, Any]:
    """The XCom of a split and what the samples task says beside it. `lag`: what is ready beyond it; `grid`: its
    table's."""
    behind = {} if lag is None else {LAG_PARTITIONS: lag.partitions, LAG_SECONDS: lag.seconds}
    known = {_AT: now.isoformat(), _GRID: msgspec.to_builtins(grid)}
    return {**xcom, **known, **behind, **({_REPAIR: True} if repair else {})}


def grid_of_xcom(xcom: Mapping[str, Any]) -> Grid | None:
    """The grid of the table that the split is of."""
    return msgspec.convert(xcom[_GRID], Grid) if _GRID in xcom else None


def is_repair(xcom: Mapping[str, Any]) -> bool:
    """Whether the split fills a hole."""
    return bool(xcom.get(_REPAIR))


def seconds_since(xcom: Mapping[str, Any], now: datetime) -> float | None:
    """Seconds since the samples task ended; None where nothing notes when that was, or a clock went back."""
    try:
        return elapsed_seconds(datetime.fromisoformat(xcom[_AT]), now)
    except (KeyError, TypeError, ValueError):
        return None


def _document(split: Split) -> str:
    """Digest of all that is handed over."""
    return digest(canonical_json(msgspec.to_builtins(split)))


def summary(split: Split) -> dict[str, Any]:
    """What people want to see of a split, small whatever its size."""
    return {
        "start": split.start.isoformat(),
        "end": split.end.isoformat(),
        "partitions": len(split.partitions),
        "holes": len(split.holes),
        "files": sum(len(partition.files) for partition in split.partitions),
        "rows": split.rows,
        "bytes": split.bytes,
    }


def _to_parquet(split: Split) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(partition, file) for partition in split.partitions for file in partition.files]
    columns = {
        "partition_start": pa.array([partition.start for partition, _ in rows], pa.timestamp("us", tz="UTC")),
        "partition_fingerprint": pa.array([partition.fingerprint for partition, _ in rows], pa.string()),
        "partition_hint": pa.array([partition.hint for partition, _ in rows], pa.string()),
        "path": pa.array([file.path for _, file in rows], pa.string()),
        "size_bytes": pa.array([file.size_bytes for _, file in rows], pa.int64()),
        "rows": pa.array([file.rows for _, file in rows], pa.int64()),
        "fingerprint": pa.array([file.fingerprint for _, file in rows], pa.string()),
        "row_groups": pa.array([list(file.row_groups) for _, file in rows], pa.list_(pa.int64())),
        "path_columns": pa.array([file.path_columns for _, file in rows], pa.list_(pa.list_(pa.string()))),
        "hint": pa.array([file.hint for _, file in rows], pa.string()),
    }
    # a row is a file: those that have none stand in the header
    empty = tuple(partition for partition in split.partitions if not partition.files)
    header = msgspec.json.encode(msgspec.structs.replace(split, partitions=empty))
    table = pa.table(columns).replace_schema_metadata({_HEADER: header})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _from_parquet(data: bytes, where: str) -> Split:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        fields = msgspec.json.decode((table.schema.metadata or {})[_HEADER], type=dict[str, Any])
        if unknown := fields.keys() - set(Split.__struct_fields__):
            raise _of_other_version(where, f"it has {', '.join(sorted(unknown))}")
        header = _converted(fields)
        rows = list(zip(*(table.column(name).to_pylist() for name in (*_OF_PARTITION, *_OF_FILE)), strict=True))
    except (pa.ArrowException, msgspec.MsgspecError, KeyError, OSError) as error:
        said = f"{where} cannot be read ({error}); clear the task that made the split"
        raise SampleUnreadable(said) from error
    partitions = list(header.partitions)
    for (start, fingerprint, hint), described in groupby(rows, key=lambda row: row[: len(_OF_PARTITION)]):
        files = tuple(
            SampleFile(path, size, count, mark, tuple(groups), tuple((key, text) for key, text in columns), file_hint)
            for _, _, _, path, size, count, mark, groups, columns, file_hint in described
        )
        partitions.append(partition_of(start, end_of(header, start), files, fingerprint=fingerprint, hint=hint))
    return msgspec.structs.replace(header, partitions=tuple(sorted(partitions, key=lambda each: each.start)))
