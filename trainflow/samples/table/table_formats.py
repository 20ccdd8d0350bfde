"""Tables whose files alone do not say what is in them: a log beside the files says which of them count.

Read as plain files they give rows that were deleted, rewritten twice or never committed. So they are refused, by the
folder that the log is in: above the partitions, between the table's root and a partition, or in a partition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from trainflow.concurrent_map import concurrent_map
from trainflow.errors import SamplesRefused, SampleUnreadable
from trainflow.observability.redaction import redact_text
from trainflow.samples.pattern import PathPattern
from trainflow.storage.store import Storage

#: so many folders above the partitions are looked at, the table's root the first of them
_LEVELS_ABOVE = 4


class _Format(NamedTuple):
    name: str
    #: the folder that its log is in
    log: str
    #: what a name in that folder looks like; None: the folder says enough
    proof: re.Pattern[str] | None = None


_FORMATS = (
    _Format("a Delta table", "_delta_log"),
    _Format("a Hudi table", ".hoodie"),
    _Format("an Iceberg table", "metadata", re.compile(r".*\.metadata\.json(\.gz)?|version-hint\.text")),
    _Format("a Lance dataset", "_versions"),
    _Format("a Paimon table", "snapshot", re.compile(r"snapshot-\d+|LATEST|EARLIEST")),
    _Format("what a Spark stream writes", "_spark_metadata"),
)
#: Hive's transactional tables have no log: folders of a partition are the transactions
_HIVE_TRANSACTION = re.compile(r"(base_\d{7,}|(delete_)?delta_\d{7,}_\d{7,}).*")


def refuse_above(storage: Storage, pattern: PathPattern) -> None:
    """Raise SamplesRefused when the table's root, or a folder above it, is that of such a table."""
    _refuse(storage, list(_above(pattern.root)))


def refuse_at(storage: Storage, pattern: PathPattern, path: str) -> None:
    """Raise SamplesRefused when the folder of a sample file, or one between it and the table's root, is that of such a
    table."""
    prefix = "" if pattern.root in (".", "") else f"{pattern.root.rstrip('/')}/"
    below = path.removeprefix(prefix).split("/")[:-1]
    for depth, name in enumerate(below):
        if _HIVE_TRANSACTION.fullmatch(name):
            raise _refused("a transactional Hive table", prefix + "/".join(below[:depth]), name)
    _refuse(storage, [prefix + "/".join(below[: count + 1]) for count in range(len(below))])


def _above(root: str) -> Iterator[str]:
    """The table's root and the folders above it, inside the project or the bucket."""
    head, separator, tail = root.partition("://")
    parts = (tail if separator else root).rstrip("/").split("/")
    # of a URL the first part is the bucket, of an absolute path nothing
    shortest = 1 if separator or root.startswith("/") else 0
    for count in range(len(parts), max(shortest, len(parts) - _LEVELS_ABOVE) - 1, -1):
        path = "/".join(parts[:count])
        yield f"{head}://{path}" if separator else path or ("/" if root.startswith("/") else ".")


def _refuse(storage: Storage, folders: list[str]) -> None:
    asked = [(folder, each) for folder in folders for each in _FORMATS]
    found = concurrent_map(storage.requests_at_once, lambda item: _is_one(storage, *item), asked)
    for (folder, each), is_one in zip(asked, found, strict=True):
        if is_one:
            raise _refused(each.name, folder, each.log)


def _is_one(storage: Storage, folder: str, each: _Format) -> bool:
    log = f"{folder.rstrip('/')}/{each.log}"
    try:
        names = storage.names(log)
        return names is not None and (each.proof is None or any(each.proof.fullmatch(name) for name in names))
    except SampleUnreadable:  # who may read the partitions need not be allowed to look above them
        return False


def _refused(name: str, folder: str, log: str) -> SamplesRefused:
    where = redact_text(folder)
    return SamplesRefused(
        f"samples.path leads into {name}: {where} has {log}. Files of it may hold rows that were deleted, rewritten or "
        "never committed, and only its log says which count, so they cannot be trained on as plain files. Write what "
        "is to be trained on (a query over the table, a partition at a time) to a folder of its own, and name that in "
        "samples.path"
    )
