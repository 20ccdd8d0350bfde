"""What a delivery says in MLflow's words: tags, params, points of metrics, one dataset, a description. Pure.

Metrics are kept apart from what user code logs into the same run by a prefix: `prequential/…` (the head scored the new
split before training on it), `train/…` (what the training function returned), `samples/…` (how much it was, and
how far behind the newest it left the chain), `progress/…` (what it reported while it trained), `chain/…`.

The curve of a chain (parent run):
    step       the checkpoint's number: grows with every commit, even after a rewind, so MLflow's "latest" value is the
               one of the newest commit, and no two commits share a step;
    timestamp  the watermark: in MLflow's UI the x-axis "Time (Wall)" shows the samples' time, whatever the partitions'
               length is;
    x-axis "Metric" with `chain/partitions` shows the same over the partitions that were trained.
Both are facts of the ledger, so delivering again writes the same point, which MLflow's database keeps once.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import NamedTuple

import msgspec

from trainflow.clock import elapsed_seconds
from trainflow.identifiers import digest
from trainflow.observability.redaction import redact, redact_text
from trainflow.tracking.deliveries import (
    Delivery,
    Metrics,
    ProgressPoint,
    RunFinished,
    TrackedAttempt,
    TrackedRun,
    TrackedSplit,
    encode,
    kind,
)
from trainflow.tracking.names import (
    CHAIN,
    DELIVERED,
    KIND,
    MAX_TAG_VALUE,
    RUN,
    RUN_KEY,
    chain_key,
    flatten,
    iso,
    milliseconds,
    run_key,
    safe_name,
    shorten,
)

Tags = dict[str, str]
_MOST_STEP = 2.0**53

#: what some of MLflow's pages go by: they would show an experiment as one about language models, without runs
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class Point(NamedTuple):
    """One value on a curve. `timestamp` in milliseconds."""

    name: str
    value: float
    step: int
    timestamp: int


class DatasetEntry(NamedTuple):
    """One MLflow dataset: the whole split, never its partitions (an input a partition does not scale)."""

    name: str
    digest: str
    source_type: str
    source: str
    profile: str


def delivered_mark(delivery: Delivery) -> str:
    """The value of the `trainflow.delivered` tag that says this very delivery is complete. Where pages are may be
    known at one time and not at another: that makes no other delivery."""
    told = msgspec.structs.replace(delivery, run=msgspec.structs.replace(delivery.run, links={}))
    return f"{kind(told)} {digest(encode(told)).removeprefix('sha256:')[:32]}"


def params(run: TrackedRun) -> dict[str, str]:
    """The run's params, flat, without secrets."""
    return flatten(redact(run.params))


def chain_tags(run: TrackedRun) -> Tags:
    """Tags of a chain's parent run, from its first run."""
    return _clean({RUN_KEY: chain_key(run.chain), KIND: CHAIN, **_shared(run), **chain_description(run)})


def run_tags(run: TrackedRun) -> Tags:
    """Tags of a DagRun's MLflow run. The chain's names are repeated: MLflow's search does not look at parents."""
    links = {f"trainflow.link.{name}": target for name, target in run.links.items()}
    return _clean(
        {
            RUN_KEY: run_key(run),
            KIND: RUN,
            "trainflow.run_id": run.run_id,
            "trainflow.run_number": str(run.run_number) if run.run_number else "",
            "trainflow.started_at": iso(run.started_at),
            **_shared(run),
            **links,
            DESCRIPTION: page_of(run),
        }
    )


def _shared(run: TrackedRun) -> Tags:
    return {
        "mlflow.source.name": run.dag_id,
        "trainflow.pipeline": run.chain.pipeline,
        "trainflow.stage": run.chain.stage,
        "trainflow.branch": run.chain.branch,
        "trainflow.store": run.store or run.chain.store,
        "trainflow.dag_id": run.dag_id,
    }


def finished_tags(finished: RunFinished) -> Tags:
    """Tags a DagRun's MLflow run gets at its end."""
    tags = {
        "trainflow.state": finished.state,
        "trainflow.ended_at": iso(finished.ended_at),
        "trainflow.note": finished.note,
        "trainflow.attempts": attempts_summary(finished),
        DESCRIPTION: run_description(finished),
    }
    if (split := finished.split) is not None:
        tags["trainflow.split_start"] = iso(split.start)
        tags["trainflow.split_end"] = iso(split.end)
        tags["trainflow.split_digest"] = split.digest
        tags["trainflow.holes"] = str(split.holes)
    if (checkpoint := finished.checkpoint) is not None:
        tags["trainflow.checkpoint_id"] = checkpoint.checkpoint_id
        tags["trainflow.checkpoint_uri"] = checkpoint.uri
        tags["trainflow.checkpoint"] = str(checkpoint.number)
        tags["trainflow.watermark"] = iso(checkpoint.watermark)
    tags["trainflow.promoted"] = " ".join(finished.promoted)
    return _clean(tags)


def head_tags(finished: RunFinished) -> Tags:
    """Tags of the chain's parent run after a run that ended; the head is named only when the run committed one."""
    tags = {"trainflow.last_run_id": finished.run.run_id, "trainflow.last_state": finished.state}
    if (checkpoint := finished.checkpoint) is not None:
        tags["trainflow.head_checkpoint"] = str(checkpoint.number)
        tags["trainflow.head_checkpoint_id"] = checkpoint.checkpoint_id
        tags["trainflow.head_checkpoint_uri"] = checkpoint.uri
        tags["trainflow.watermark"] = iso(checkpoint.watermark)
    return _clean(tags)


def run_points(finished: RunFinished) -> list[Point]:
    """Metrics of a DagRun's MLflow run: step = the checkpoint's number (0: it committed none), timestamp = end of the
    run."""
    step = 0 if finished.checkpoint is None else finished.checkpoint.number
    return _points(finished, step, milliseconds(finished.ended_at))


def chain_points(finished: RunFinished) -> list[Point]:
    """What a committed run adds to the curve of its chain; nothing when it committed nothing, because the same split
    is scored again by the run that does commit it."""
    checkpoint = finished.checkpoint
    if checkpoint is None:
        return []
    return _points(finished, checkpoint.number, milliseconds(checkpoint.watermark))


def _points(finished: RunFinished, step: int, timestamp: int) -> list[Point]:
    seconds = elapsed_seconds(finished.run.started_at, finished.ended_at)
    values = {
        **_prefixed("prequential", finished.evaluation),
        **_prefixed("train", finished.training),
        **_amounts(finished.split),
        **_of_line(finished),
        **({} if seconds is None else {"run/seconds": seconds}),
    }
    return [Point(name, value, step, timestamp) for name, value in sorted(values.items())]


def _of_line(finished: RunFinished) -> dict[str, float]:
    checkpoint = finished.checkpoint
    return {"chain/partitions": float(checkpoint.partitions)} if checkpoint and checkpoint.partitions else {}


def progress_points(finished: RunFinished) -> list[Point]:
    """What the training reported while it ran: step = how far it was. An attempt that did not end well has curves of
    its own, named after which of the task's attempts it was: what it had trained since its last save was done again."""
    found = _curve_points("progress", finished.progress)
    numbers: Counter[str] = Counter()
    for attempt in finished.attempts:
        numbers[attempt.task_id] += 1
        found += _curve_points(f"progress/attempt {numbers[attempt.task_id]}", attempt.progress)
    return found


def _curve_points(prefix: str, curves: dict[str, list[ProgressPoint]]) -> list[Point]:
    return [
        Point(
            safe_name(f"{prefix}/{name}"), math.nan if point.value is None else point.value, _step(point.done), point.at
        )
        for name, points in sorted(curves.items())
        for point in points
    ]


def _step(done: float) -> int:
    """MLflow counts in 64 bits."""
    return int(max(-_MOST_STEP, min(_MOST_STEP, done)))


def _prefixed(prefix: str, metrics: Metrics) -> dict[str, float]:
    return {safe_name(f"{prefix}/{name}"): math.nan if value is None else value for name, value in metrics.items()}


def _amounts(split: TrackedSplit | None) -> dict[str, float]:
    if split is None:
        return {}
    amounts = {
        "samples/partitions": split.partitions,
        "samples/rows": split.rows,
        "samples/bytes": split.size_bytes,
        "samples/lag_partitions": split.lag_partitions,
        "samples/lag_seconds": split.lag_seconds,
    }
    return {name: float(amount) for name, amount in amounts.items() if amount is not None}


def dataset(finished: RunFinished) -> DatasetEntry | None:
    """The one dataset of a run: its split."""
    split = finished.split
    if split is None:
        return None
    source = redact_text(split.source)
    profile = {
        "start": iso(split.start),
        "end": iso(split.end),
        "partitions": split.partitions,
        "rows": split.rows,
        "bytes": split.size_bytes,
        "holes": split.holes,
        "digest": split.digest,
    }
    return DatasetEntry(
        name=f"{finished.run.chain.pipeline}: {iso(split.start)} → {iso(split.end)}",
        digest=split.digest.rpartition(":")[2][:36],  # MLflow keeps 36 characters; the whole one is in the profile
        source_type=source.partition("://")[0] if "://" in source else "local",
        source=json.dumps({"uri": source}),
        profile=json.dumps(profile),
    )


def with_mark(tags: Tags, delivery: Delivery) -> Tags:
    """`tags` and the mark that the delivery is complete."""
    return {**tags, DELIVERED: delivered_mark(delivery)}


def _clean(tags: Tags) -> Tags:
    return {
        safe_name(name): shorten(redact_text(value), MAX_TAG_VALUE) if name != RUN_KEY else value
        for name, value in tags.items()
        if value
    }


#: the tag that MLflow shows as the description of a run
DESCRIPTION = "mlflow.note.content"
#: of the attempts of tasks that had trouble, so many are listed
_MOST_LISTED = 20
_PROBLEM_CHARACTERS = 120
_WELL = frozenset({"success", "skipped", "deferred", "rescheduled"})


def page_of(run: TrackedRun) -> str:
    """A line that leads back to the run's page; empty where none is known."""
    page = run.links.get("run")
    return f"[{run.dag_id}: {run.run_id}]({page}) in trainflow" if page else ""


def chain_description(run: TrackedRun) -> dict[str, str]:
    """The description of a chain's parent run, as a tag; none where no page is known."""
    page, chain = run.links.get("chain"), run.chain
    return {DESCRIPTION: f"[{chain.pipeline}/{chain.stage}/{chain.branch}]({page}) in trainflow"} if page else {}


def run_description(finished: RunFinished) -> str:
    """Describe a run that has ended: its page, what came of it, and the attempts of tasks that had trouble."""
    parts = [page_of(finished.run), redact_text(finished.note), _committed(finished), _attempts(finished)]
    return "\n\n".join(filter(None, parts))


def _committed(finished: RunFinished) -> str:
    checkpoint, split = finished.checkpoint, finished.split
    if checkpoint is None:
        return ""
    trained = "" if split is None else f", trained on {iso(split.start)} → {iso(split.end)}"
    return f"Checkpoint {checkpoint.number}{trained}"


def attempts_summary(finished: RunFinished) -> str:
    """Attempts by how they ended: `7 success, 1 lost, 2 preempted`."""
    counts = Counter(attempt.outcome for attempt in finished.attempts)
    return ", ".join(
        f"{counts[outcome]} {outcome}" for outcome in sorted(counts, key=lambda name: (name != "success", name))
    )


def _attempts(finished: RunFinished) -> str:
    """All attempts of the tasks that had one which did not go well: what it took until they were done."""
    troubled = {attempt.task_id for attempt in finished.attempts if attempt.outcome not in _WELL}
    if not troubled:
        return ""
    told = [attempt for attempt in finished.attempts if attempt.task_id in troubled]
    rows = [_row(attempt) for attempt in told[-_MOST_LISTED:]]
    head = ["| attempt | ended as | began | seconds | host | why |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _row(attempt: TrackedAttempt) -> str:
    seconds = "" if attempt.seconds is None else f"{attempt.seconds:.1f}"
    began = "" if attempt.started_at is None else iso(attempt.started_at)
    problem = " ".join(redact_text(attempt.problem).split())[:_PROBLEM_CHARACTERS].replace("|", "\\|")
    cells = [f"{attempt.task_id} #{attempt.try_number}", attempt.outcome, began, seconds, attempt.hostname, problem]
    return f"| {' | '.join(cells)} |"
