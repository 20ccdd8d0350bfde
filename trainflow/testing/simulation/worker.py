"""What a task process does, as a generator that stops wherever a real one can be killed.

It yields requests to the control plane (and is sent the replies) and names of points between two effects. The effects
are the real ones: the ledger is read, files are written, the steps of a commit are taken one by one.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import msgspec

from trainflow.checkpoints.commit import STEPS, Commit, CommitRequest
from trainflow.checkpoints.entries import ArtifactFile, Artifacts, Author
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.store import Store
from trainflow.checkpoints.summary import summary_of
from trainflow.clock import Clock
from trainflow.errors import FailException, SkipException, TaskError, TaskTerminated, TrainflowError
from trainflow.identifiers import digest, triggered_run_id
from trainflow.messages.outcome import CommittedCheckpoint, Deferral, Outcome, OutcomeState, Problem, TriggeredRun
from trainflow.messages.outcome import XComItem as Item
from trainflow.messages.requests import GetXCom, Progress, Refused, Reply, Request, Start, Started, XComValues
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.trigger_queries import FAIL_METHOD
from trainflow.samples.next_split import CaughtUp, SplitFound, Waiting
from trainflow.samples.partitions import after_watermark
from trainflow.samples.split import Split
from trainflow.testing.simulation.pipeline import CHAIN, DAG_ID
from trainflow.testing.simulation.table import SampleTable

TRIGGER_CLASS = "simulated.PartitionTrigger"
MODEL = "model.json"
OPTIMIZER = "optimizer.json"

#: yields requests and names of points; is sent replies (None at a point); returns the exit code
Attempt = Generator[Request | str, Reply | None, int]
Steps = Generator[Request | str, Reply | None, "Result"]


class Surroundings(Protocol):
    """What an attempt reaches besides the control plane."""

    @property
    def clock(self) -> Clock: ...
    @property
    def table(self) -> SampleTable: ...
    @property
    def mode(self) -> str: ...


class Misfortune(Exception):
    """The training function raised."""


class Silence(BaseException):
    """The training function called `os._exit(0)`."""


class Deferred(Exception):
    """The task waits for a partition."""

    def __init__(self, deferral: Deferral) -> None:
        super().__init__(deferral.trigger_class)
        self.deferral = deferral


@dataclass
class Result:
    """What a task hands over."""

    value: Any = None
    triggered: list[TriggeredRun] = field(default_factory=list)
    checkpoint: CommittedCheckpoint | None = None


@dataclass
class Work:
    """One attempt in one process."""

    workload: ExecuteTask
    pid: int
    process_started: float
    hostname: str
    store: Store
    surroundings: Surroundings
    #: it was told to stop
    told_to_stop: bool = False


def attempt(work: Work) -> Attempt:
    """Claim, execute, report: `trainflow.execution.task_runner`."""
    started = yield Start(work.workload.key, work.pid, work.process_started, work.hostname)
    if not isinstance(started, Started):
        return 0
    try:
        outcome = yield from _executed(work, started)
    except Silence:
        return 0
    if work.told_to_stop and outcome.state is not OutcomeState.FAILED:
        outcome = Outcome(work.workload.key, OutcomeState.PREEMPTED, problem=Problem("was told to stop"))
    yield outcome
    return 1 if outcome.state is OutcomeState.FAILED else 0


def _executed(work: Work, started: Started) -> Generator[Request | str, Reply | None, Outcome]:
    key = work.workload.key
    try:
        if started.next_method == FAIL_METHOD:
            raise TaskError(started.next_kwargs["error"])
        result = yield from _TASKS[work.workload.task_id](work)
    except Deferred as deferred:
        return Outcome(key, OutcomeState.DEFERRED, deferral=deferred.deferral)
    except SkipException as skipped:
        items = [Item("caught_up", msgspec.Raw(b"true"))]
        return Outcome(key, OutcomeState.SKIPPED, xcoms=items, note=str(skipped))
    except TaskTerminated as error:
        return Outcome(key, OutcomeState.PREEMPTED, problem=Problem(str(error)))
    except (TrainflowError, Misfortune) as error:
        kind, retryable = type(error).__name__, not isinstance(error, FailException)
        return Outcome(key, OutcomeState.FAILED, problem=Problem(str(error), kind=kind, retryable=retryable))
    items = [] if result.value is None else [Item("return_value", msgspec.Raw(msgspec.json.encode(result.value)))]
    return Outcome(
        key, OutcomeState.SUCCESS, xcoms=items, triggered_runs=result.triggered, checkpoint=result.checkpoint
    )


def _pull(work: Work, task_id: str) -> Generator[Request | str, Reply | None, Any]:
    job = work.workload
    reply = yield GetXCom(job.key, job.dag_id, job.run_id, [task_id], "return_value")
    if isinstance(reply, Refused):
        raise TaskTerminated(reply.reason)
    assert isinstance(reply, XComValues), reply
    return msgspec.json.decode(reply.values[task_id]) if task_id in reply.values else None


def _pull_head(work: Work) -> Generator[Request | str, Reply | None, dict[str, Any]]:
    head = yield from _pull(work, "checkpoint")
    if head is None:
        raise FailException("'checkpoint' is not what a CheckpointOperator hands over")
    return dict(head)


def _pull_split(work: Work) -> Generator[Request | str, Reply | None, Split]:
    value = yield from _pull(work, "samples")
    if value is None:
        raise FailException("'split' is not what a DataCheckerOperator hands over")
    return msgspec.convert(value, Split)


# -- the tasks -------------------------------------------------------------------------------------------------------


def _checkpoint(work: Work) -> Steps:
    state = Ledger(work.store, CHAIN).state()
    yield "head was read"
    head = state.head
    watermark = head.watermark.isoformat() if head else None
    return Result({"id": head.id if head else None, "sequence": state.head_sequence, "watermark": watermark})


def _samples(work: Work) -> Steps:
    head = yield from _pull_head(work)
    watermark = datetime.fromisoformat(head["watermark"]) if head["watermark"] else None
    table = work.surroundings.table
    answer = table.next_split(watermark)
    yield "split was chosen"
    match answer:
        case SplitFound(split):
            return Result(msgspec.to_builtins(split))
        case Waiting(partition_start, _, check_again_at):
            raise Deferred(_wait(partition_start, check_again_at))
        case CaughtUp():
            if work.surroundings.mode == "backfill" or answer.finished:
                raise SkipException(f"caught up: {answer.reason}")
            raise Deferred(_wait(after_watermark(table.samples, watermark), None))


def _wait(partition_start: datetime, check_again_at: datetime | None) -> Deferral:
    again = check_again_at.isoformat() if check_again_at else None
    kwargs = {"partition_start": partition_start.isoformat(), "check_again_at": again}
    return Deferral(TRIGGER_CLASS, kwargs, "execute_complete")


def _evaluate(work: Work) -> Steps:
    head = yield from _pull_head(work)
    split = yield from _pull_split(work)
    yield "was evaluated"
    return Result({"auc": 0.5 + 0.001 * len(split.partitions)} if head["id"] else None)


def _train(work: Work) -> Steps:
    head = yield from _pull_head(work)
    split = yield from _pull_split(work)
    trained: list[str] = []
    if head["id"]:
        trained = json.loads(work.store.read(f"{CHAIN.attempt(head['id'])}/{MODEL}"))
    for number, partition in enumerate(split.partitions, 1):
        trained.append(partition.start.isoformat())
        yield Progress(work.workload.key, number, len(split.partitions), "partitions")
    folder = CHAIN.attempt(work.workload.key.attempt_id)
    files = []
    for name, content in ((MODEL, trained), (OPTIMIZER, {"steps": len(trained)})):
        data = json.dumps(content).encode()
        work.store.replace(f"{folder}/{name}", data)
        files.append(ArtifactFile(name, len(data), digest(data)))
        yield f"{name} was written"
    of = {"parent": head["id"], "split": split.digest}
    artifacts = Artifacts(folder, sorted(files, key=lambda file: file.path))
    return Result({"artifacts": msgspec.to_builtins(artifacts), "metrics": {"loss": 1.0 / len(trained)}, **of})


def _commit(work: Work) -> Steps:
    head = yield from _pull_head(work)
    split = yield from _pull_split(work)
    trained = yield from _pull(work, "train")
    if trained is None:
        raise FailException("'trained' is not what a TrainOperator hands over")
    if (trained["parent"], trained["split"]) != (head["id"], split.digest):
        raise FailException("what was trained is not of this split and this parent")
    job = work.workload
    request = CommitRequest(
        chain=CHAIN,
        parent_id=head["id"],
        split=summary_of(split),
        artifacts=msgspec.convert(trained["artifacts"], Artifacts),
        by=Author(job.run_id, job.key.attempt_id, DAG_ID, work.hostname),
        metrics=trained["metrics"],
    )
    commit = Commit(Ledger(work.store, CHAIN), request, work.surroundings.clock.now())
    for name, step in STEPS:
        if commit.done is None:
            step(commit)
            yield f"commit: {name}"
    done = commit.done
    assert done is not None
    uri = work.store.uri(done.artifacts.path)
    value = {"id": done.id, "sequence": done.sequence, "watermark": done.watermark.isoformat(), "uri": uri}
    return Result(value, checkpoint=CommittedCheckpoint(done.id, done.sequence, uri, done.watermark))


def _next(work: Work) -> Steps:
    job = work.workload
    yield "knows what comes next"
    return Result(triggered=[TriggeredRun(DAG_ID, triggered_run_id(DAG_ID, job.run_id, job.task_id, job.map_index))])


_TASKS = {
    "checkpoint": _checkpoint,
    "samples": _samples,
    "evaluate": _evaluate,
    "train": _train,
    "commit": _commit,
    "next": _next,
}
