"""Files of samples as a split names them, for tests that make a split by hand."""

from __future__ import annotations

from trainflow.samples.files.file_binding import content_now
from trainflow.samples.files.footers import is_parquet
from trainflow.samples.files.parquet_file import open_file
from trainflow.samples.splits.split_content import SampleFile
from trainflow.storage.store import Storage


def described_file(storage: Storage, path: str, version: str = "", hint: str = "") -> SampleFile:
    """A file as a split would name it, whatever else is in its table. Raises what the storage and Arrow raise."""
    if not is_parquet(storage, path):
        content = content_now(storage, path, version)
        return SampleFile(path, content.size_bytes, None, content.fingerprint, hint=hint)
    opened = open_file(storage, path)
    metadata = opened.parquet.metadata
    groups = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    opened.close()
    return SampleFile(path, opened.content.size_bytes, sum(groups), opened.content.fingerprint, groups, hint=hint)
