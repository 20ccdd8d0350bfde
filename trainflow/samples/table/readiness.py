"""When a partition is completely written: a pure rule over the files in its folder.

A marker alone proves little (a copy may bring `_SUCCESS` before the data), so a partition without a sample file is
empty, and ready, only once it has stayed so for a while, and conditions combine: all that are given must hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from trainflow.errors import SampleDamaged
from trainflow.humanize import counted
from trainflow.identifiers import canonical_json, digest
from trainflow.samples.partitions import label
from trainflow.samples.pattern import glob_expression, path_pattern
from trainflow.samples.spec import Ready, Samples
from trainflow.storage.store import StoreFile

DEFAULT_MARKER = "_SUCCESS"
#: how names begin that are no data
_ASIDE = ("_", ".")
#: said where the file asks for no marker
_BY_DEFAULT = ", which samples.ready asks for by default (where no marker is written: {stable: 10m})"


class Readiness(StrEnum):
    """What is known of a partition."""

    #: nothing is there
    MISSING = "missing"
    #: something is there, and a condition does not hold yet
    NOT_READY = "not_ready"
    READY = "ready"


class PartitionState(msgspec.Struct, frozen=True):
    """One partition as it is now."""

    start: datetime
    presence: Readiness
    #: a clause for people, "" when ready
    reason: str = ""
    #: when its newest file (or its marker) was written; None when nothing is there or the store does not say
    changed: datetime | None = None
    #: when time alone may change the answer
    check_again_at: datetime | None = None
    #: the sample files, by name
    files: tuple[StoreFile, ...] = ()
    #: what is wrong with a file whose rows were asked for
    damaged: SampleDamaged | None = None
    #: name (or glob) of the marker that it lacks
    missing_marker: str | None = None

    @property
    def has_samples(self) -> bool:
        """Whether it is ready and not empty: there is something in it to train on."""
        return self.presence is Readiness.READY and bool(self.files)

    @property
    def listing(self) -> str:
        """Digest of what a listing shows of the sample files: another one means that something was written."""
        return digest(canonical_json([[file.path, file.size_bytes, file.version] for file in self.files]))


def judge(
    samples: Samples,
    start: datetime,
    stored: list[StoreFile] | None,
    now: datetime,
    count_rows: Callable[[tuple[StoreFile, ...]], int],
    counts: Callable[[str, str], bool] | None = None,
) -> PartitionState:
    """The state of the partition whose folder holds `stored` (None: there is no folder).

    `count_rows` reads the files' footers; it is called only when a condition needs rows and all others hold. `counts`
    says which names a glob means, `is_sample` by default.
    """
    if not stored:
        return PartitionState(start, Readiness.MISSING, "nothing is there")
    files = tuple(file for file in stored if (counts or is_sample)(file.path, samples.files))
    uncommitted = _uncommitted(stored)
    if uncommitted:
        files = tuple(file for file in files if _transaction_of(file.path) not in uncommitted)
    marker = _marker_name(samples.ready)
    markers = [file for file in stored if marker is not None and glob_expression(marker).fullmatch(file.path)]
    moments = [file.modified for file in (*files, *markers) if file.modified is not None]
    changed = max(moments, default=None)
    again = damaged = None
    if marker is not None and not markers:
        reason = f"it has no {marker}" + (_BY_DEFAULT if _asks_for_nothing(samples.ready) else "")
    elif not files and uncommitted:
        reason = f"what is in it was not committed: it has a _started_{min(uncommitted)}, and no _committed_ of that"
    elif not files and ((other := _other(stored, marker)) or marker is None):
        reason = f"it has no file that matches {samples.files}"
        if other is not None:
            reason += f", but {other}{_hint(other, samples.files)}"
    else:
        reason, again = _too_young(samples.ready, changed, now)
        if not files and not reason:
            reason, again = _perhaps_empty(samples, changed, now)
        reason = _too_small(samples.ready, files) or reason
        if not reason:
            reason, damaged = _too_few_rows(samples.ready, files, count_rows)
    presence = Readiness.NOT_READY if reason else Readiness.READY
    missing = marker if marker is not None and not markers else None
    return PartitionState(start, presence, reason, changed, again, files, damaged, missing)


#: what a job of Databricks writes beside its files when it begins and when it commits, and how it names these
_STARTED, _COMMITTED = re.compile(r"(?:.*/)?_started_(\d+)"), re.compile(r"(?:.*/)?_committed_(\d+)")
_TRANSACTION = re.compile(r".*-tid-(\d+)-[^/]*")


def _uncommitted(stored: list[StoreFile]) -> set[str]:
    """The transactions of which files may be there that no reader is to see: of a job that is at work, or that failed
    and was run again."""
    names = [file.path for file in stored if "_started_" in file.path or "_committed_" in file.path]
    if not names:
        return set()
    begun, ended = (
        {found[1] for name in names if (found := pattern.fullmatch(name))} for pattern in (_STARTED, _COMMITTED)
    )
    return begun - ended


def _transaction_of(name: str) -> str | None:
    found = _TRANSACTION.fullmatch(name)
    return found[1] if found else None


def _other(stored: list[StoreFile], marker: str | None) -> str | None:
    """A file that no glob of the samples asks for, and that has no place in an empty partition: data by another name,
    or what a writer that has not ended keeps in a folder of its own."""
    names = (file.path for file in stored if marker is None or not glob_expression(marker).fullmatch(file.path))
    return next((name for name in names if is_sample(name, "**") or "/" in name), None)


#: other files that people keep samples in, and what those may be compressed by
_DATA = re.compile(
    r".+(\.(arrow|avro|csv|feather|ipc|json|jsonl|mds|ndjson|npy|npz|orc|parq|pq|tar|tfrecords?|tsv|txt)"
    r"(\.(bz2|gz|lz4|xz|zst))?|\.tgz)"
)


def _hint(name: str, glob: str) -> str:
    """What to write for samples that are called otherwise, or lie in folders below the partition's."""
    deep = f"**/{glob}"
    if is_sample(name, deep):
        return f' (for what lies in folders below: samples.files: "{deep}")'
    data = _DATA.fullmatch(name)
    if data is None or "/" in name:
        return ""
    return f' (for files like that: samples.files: "*{data[1]}")'


def _perhaps_empty(samples: Samples, changed: datetime | None, now: datetime) -> tuple[str, datetime | None]:
    """Tell why a partition that has its marker and no file does not count as empty yet ("": it does), and when it
    will."""
    marker, patience = _marker_name(samples.ready), samples.ready.unfinished_seconds
    empty_at = None if changed is None else changed + timedelta(seconds=patience)
    if empty_at is not None and now >= empty_at:
        return "", None
    only = f"it has no file that matches {samples.files}, only {marker}"
    if empty_at is None:
        return f"{only}, and its storage does not say since when", None
    return f"{only}; it counts as empty at {label(empty_at)} if that stays so", empty_at


def _too_small(rule: Ready, files: tuple[StoreFile, ...]) -> str:
    if rule.min_files is not None and len(files) < rule.min_files:
        return f"it has {len(files)} of at least {counted(rule.min_files, 'file')}"
    size = sum(file.size_bytes for file in files)
    if rule.min_bytes is not None and size < rule.min_bytes:
        return f"it has {size:,} of at least {counted(rule.min_bytes, 'byte')}"
    return ""


def _too_young(rule: Ready, changed: datetime | None, now: datetime) -> tuple[str, datetime | None]:
    """Tell why it is too young ("": it is not), and when it will be old enough."""
    if rule.stable_seconds is None:
        return "", None
    if changed is None:
        return "its storage does not say when files were modified, so stable_seconds cannot hold", None
    stable_at = changed + timedelta(seconds=rule.stable_seconds)
    if now >= stable_at:
        return "", None
    return f"it was modified at {label(changed)}, less than {rule.stable_seconds:g} s ago", stable_at


def _too_few_rows(
    rule: Ready, files: tuple[StoreFile, ...], count_rows: Callable[[tuple[StoreFile, ...]], int]
) -> tuple[str, SampleDamaged | None]:
    if rule.min_rows is None:
        return "", None
    try:
        rows = count_rows(files)
    except SampleDamaged as error:
        return f"a file is not completely written ({error})", error
    return f"it has {rows:,} of at least {counted(rule.min_rows, 'row')}" if rows < rule.min_rows else "", None


def warm_up(samples: Samples) -> None:
    """Make the expressions of its globs: for a process that tasks are forked from."""
    for glob in (samples.files, _marker_name(samples.ready)):
        if glob is not None:
            glob_expression(glob)


def is_sample(name: str, glob: str) -> bool:
    """Whether a file (named relative to its partition) is data: it matches, and nothing on its way starts with `_` or
    `.` (Spark's `_temporary/`, checksums) unless the glob says so too. `key=__HIVE_DEFAULT_PARTITION__/` is data."""
    if not glob_expression(glob).fullmatch(name):
        return False
    return glob.startswith(_ASIDE) or not (name.startswith(_ASIDE) or "/_" in name or "/." in name)


def _marker_name(rule: Ready) -> str | None:
    if rule.marker is not None:
        return rule.marker
    return DEFAULT_MARKER if _asks_for_nothing(rule) else None


def _asks_for_nothing(rule: Ready) -> bool:
    """Whether no condition is given."""
    conditions = (rule.marker, rule.min_files, rule.min_rows, rule.min_bytes, rule.stable_seconds)
    return all(condition is None for condition in conditions)


def folder_content(samples: Samples, listing: Callable[[bool], list[StoreFile] | None]) -> list[StoreFile] | None:
    """What the folder of a partition holds; None: there is no folder. `listing` is told whether to look below it.

    Where none of its own files is a sample, what lies below is looked at although no glob asks for it: a partition
    whose files are in folders of another column (`region=eu/`) is not empty.
    """
    if _needs_folders_below(samples):
        return listing(True)
    found = listing(False)
    if found is None or path_pattern(samples.path).names_a_file:
        return found
    return found if any(is_sample(each.path, samples.files) for each in found) else listing(True) or found


def _needs_folders_below(samples: Samples) -> bool:
    """Whether files or marker may lie in folders below the partition's."""
    return any("/" in glob or "**" in glob for glob in (samples.files, samples.ready.marker or ""))
