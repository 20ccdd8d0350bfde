"""What is told of a run of a chain, and that as an event of OpenLineage. Pure."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from trainflow.bootstrap import version
from trainflow.identifiers import canonical_json
from trainflow.observability.redaction import redact_text


class LineageChain(msgspec.Struct, frozen=True):
    """A chain, and its store: a URL or an absolute path."""

    store: str
    pipeline: str
    stage: str
    branch: str


class LineageCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint of a chain; `number` 0 and `watermark` None: not known."""

    chain: LineageChain
    id: str
    number: int = 0
    watermark: datetime | None = None
    metrics: dict[str, float | None] = {}
    promoted: list[str] = []


class ListedPartition(msgspec.Struct, frozen=True):
    """A partition of a split, and what tells its content from another one."""

    start: datetime
    fingerprint: str


class LineageSplit(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was trained on. `table`: the table's path, a URL or absolute. `partitions` are told one by one where
    they are few (`listed`)."""

    table: str
    start: datetime
    end: datetime
    partitions: int
    holes: int
    digest: str
    files: int | None = None
    rows: int | None = None
    size_bytes: int | None = None
    listed: list[ListedPartition] = []


class LineageRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `clear_number`: how often a person let it run again: each time is a run of its own. `page`: its page."""

    namespace: str
    dag_id: str
    run_id: str
    clear_number: int
    queued_at: datetime
    started_at: datetime
    file: str
    description: str = ""
    page: str | None = None


class RunBegan(msgspec.Struct, frozen=True):
    """A run has begun."""

    run: LineageRun


class RunEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A run has ended. `why`: of one that did not succeed."""

    run: LineageRun
    state: Literal["success", "failed", "cancelled"]
    ended_at: datetime
    why: str = ""
    split: LineageSplit | None = None
    parent: LineageCheckpoint | None = None
    #: the checkpoint of another stage that training began with
    upstream: LineageCheckpoint | None = None
    checkpoint: LineageCheckpoint | None = None


_SPEC = "https://openlineage.io/spec"
_EVENT = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
#: of facets that are ours alone: they have what every facet has
_OWN_FACET = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs"
#: name of the facet → its schema's version and name
_FACETS = {
    "nominalTime": ("1-0-1", "NominalTimeRunFacet"),
    "errorMessage": ("1-0-1", "ErrorMessageRunFacet"),
    "processing_engine": ("1-1-1", "ProcessingEngineRunFacet"),
    "jobType": ("2-0-4", "JobTypeJobFacet"),
    "documentation": ("1-1-0", "DocumentationJobFacet"),
    "version": ("1-0-1", "DatasetVersionDatasetFacet"),
    "inputStatistics": ("1-0-0", "InputStatisticsInputDatasetFacet"),
    "outputStatistics": ("1-0-2", "OutputStatisticsOutputDatasetFacet"),
}
_TYPES = {"success": "COMPLETE", "failed": "FAIL", "cancelled": "ABORT"}
#: names a producer; no address of a page
_PRODUCER = "urn:trainflow:{version}"


def event_of(told: RunBegan | RunEnded) -> dict[str, Any]:
    """The event, as JSON. The same fact gives the same event."""
    ended = told if isinstance(told, RunEnded) else None
    return {
        "eventTime": _moment(told.run.started_at if ended is None else ended.ended_at),
        "eventType": "START" if ended is None else _TYPES[ended.state],
        "run": {"runId": str(run_uuid(told.run)), "facets": _run_facets(told)},
        "job": {"namespace": told.run.namespace, "name": told.run.dag_id, "facets": _job_facets(told.run)},
        "inputs": [] if ended is None else _inputs(ended),
        "outputs": [] if ended is None or ended.checkpoint is None else [_output(ended.checkpoint, ended.split)],
        "producer": _producer(),
        "schemaURL": _EVENT,
    }


def run_uuid(run: LineageRun) -> UUID:
    """A UUID of version 7 that follows from the run: it sorts by when the run was queued."""
    name = canonical_json([run.namespace, run.dag_id, run.run_id, run.clear_number])
    value = (int(run.queued_at.timestamp() * 1000) & 0xFFFFFFFFFFFF) << 80
    value |= int.from_bytes(hashlib.sha256(name).digest()[:10])
    value = value & ~(0xF << 76) | 7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def _run_facets(told: RunBegan | RunEnded) -> dict[str, Any]:
    run = told.run
    ours = {"dag_id": run.dag_id, "run_id": run.run_id, "file": run.file}
    facets = {
        "processing_engine": _facet("processing_engine", version=version(), name="trainflow"),
        "trainflow_run": _own_facet("RunFacet", **ours, **({"page": run.page} if run.page else {})),
    }
    if isinstance(told, RunEnded):
        if told.split is not None:
            times = {"nominalStartTime": _moment(told.split.start), "nominalEndTime": _moment(told.split.end)}
            facets["nominalTime"] = _facet("nominalTime", **times)
        if told.state != "success":
            message = redact_text(told.why) or f"the run was {told.state}"
            facets["errorMessage"] = _facet("errorMessage", message=message, programmingLanguage="PYTHON")
    return facets


def _job_facets(run: LineageRun) -> dict[str, Any]:
    facets = {"jobType": _facet("jobType", processingType="BATCH", integration="TRAINFLOW", jobType="DAG")}
    if run.description:
        facets["documentation"] = _facet("documentation", description=run.description)
    return facets


def _inputs(ended: RunEnded) -> list[dict[str, Any]]:
    """The table, and the checkpoints that training began with; a run that had no split has read nothing."""
    if ended.split is None:
        return []
    before = [_checkpoint(each) for each in (ended.parent, ended.upstream) if each is not None]
    return [_table(ended.split), *before]


def _table(split: LineageSplit) -> dict[str, Any]:
    """One dataset, whatever partitions were read: a dataset for each would fill the graph of who looks at it."""
    namespace, name = dataset_name(_root_of(split.table))
    counts = {"rowCount": split.rows, "size": split.size_bytes, "fileCount": split.files}
    listed = [{"start": _moment(each.start), "fingerprint": each.fingerprint} for each in split.listed]
    ours = {
        "start": _moment(split.start),
        "end": _moment(split.end),
        "partitions": split.partitions,
        "holes": split.holes,
        "digest": split.digest,
        **({"listed": listed} if listed else {}),
    }
    return {
        "namespace": namespace,
        "name": name,
        "facets": {"version": _facet("version", datasetVersion=split.digest)},
        "inputFacets": {
            "inputStatistics": _facet("inputStatistics", **{key: n for key, n in counts.items() if n is not None}),
            "trainflow_split": _own_facet("InputDatasetFacet", **ours),
        },
    }


def _checkpoint(checkpoint: LineageCheckpoint) -> dict[str, Any]:
    """The dataset of a chain, in the version of one of its checkpoints."""
    namespace, name = dataset_name(_folder_of(checkpoint.chain))
    return {
        "namespace": namespace,
        "name": name,
        "facets": {"version": _facet("version", datasetVersion=checkpoint.id)},
    }


def _output(checkpoint: LineageCheckpoint, split: LineageSplit | None) -> dict[str, Any]:
    dataset = _checkpoint(checkpoint)
    ours = {
        "number": checkpoint.number,
        "metrics": checkpoint.metrics,
        "promoted": checkpoint.promoted,
        **({"watermark": _moment(checkpoint.watermark)} if checkpoint.watermark is not None else {}),
    }
    dataset["facets"]["trainflow_checkpoint"] = _own_facet("DatasetFacet", **ours)
    if split is not None and split.rows is not None:
        dataset["outputFacets"] = {"outputStatistics": _facet("outputStatistics", rowCount=split.rows)}
    return dataset


def dataset_name(url: str) -> tuple[str, str]:
    """Namespace and name of what is at a URL or an absolute path, by OpenLineage's rules of naming."""
    if "://" not in url or url.startswith(("file://", "local://")):
        return "file", re.sub(r"^(file|local)://", "", url).rstrip("/") or "/"
    parts = urlsplit(redact_text(url))
    host = parts.netloc.rpartition("@")[2] if parts.scheme not in ("abfs", "abfss") else parts.netloc
    return f"{parts.scheme}://{host}", parts.path.strip("/") or "/"


def _root_of(pattern: str) -> str:
    """The folder above the first part of a path with a time in it."""
    fixed, brace, _ = pattern.partition("{")
    return fixed.rpartition("/")[0] if brace else fixed


def _folder_of(chain: LineageChain) -> str:
    return f"{chain.store.rstrip('/')}/{chain.pipeline}/{chain.stage}/{chain.branch}"


def _facet(name: str, /, **values: Any) -> dict[str, Any]:
    number, schema = _FACETS[name]
    return {"_producer": _producer(), "_schemaURL": f"{_SPEC}/facets/{number}/{schema}.json#/$defs/{schema}", **values}


def _own_facet(kind: str, /, **values: Any) -> dict[str, Any]:
    return {"_producer": _producer(), "_schemaURL": f"{_OWN_FACET}/{kind}", **values}


def _producer() -> str:
    return _PRODUCER.format(version=version())


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
