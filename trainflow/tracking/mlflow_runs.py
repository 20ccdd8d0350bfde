"""Write deliveries into MLflow's runs; `mlflow_models` writes its models. Imported by the deliverer's process alone.

Every step can be repeated: a run is looked for by its key before it is made, params that are there are left alone,
points are facts of the ledger, and the mark `trainflow.delivered` is written last. So a kill between any two steps
costs a repetition and nothing else.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient

from trainflow.tracking import mlflow_fields
from trainflow.tracking.deliveries import Delivery, Demoted, Promoted, RunFinished, RunStarted, TrackedChain, TrackedRun
from trainflow.tracking.mlflow_fields import Point, Tags, chain_description
from trainflow.tracking.mlflow_models import LoggedModels, Registry
from trainflow.tracking.names import DELIVERED, RUN_KEY, chain_key, iso, milliseconds, run_key

T = TypeVar("T")

_STATUS = {"success": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
#: of one MLflow request
_MOST_PARAMS = 100
_MOST_METRICS = 1000
#: when the runs of a chain were told to the parent last: what is older does not move it
_TOLD_AT = "trainflow.updated_at"


class Mirrored(NamedTuple):
    """Where a delivery went: MLflow's ids."""

    experiment_id: str
    chain_run_id: str
    run_id: str


@dataclass
class _Chain:
    """The parent run of a chain as this process left it; no other process changes it."""

    id: str
    status: str
    #: the end of the newest run that was told, and the mark of the delivery that told it
    told_at: datetime | None
    mark: str | None


class Mirror:
    """One MLflow tracking store. Remembers the ids of experiments and chains it has met."""

    def __init__(self, client: MlflowClient, artifact_root: str | None = None) -> None:
        self._client = client
        self._artifact_root = artifact_root
        self._registry = Registry(client)
        self._models = LoggedModels(client)
        self._experiments: dict[str, str] = {}
        self._chains: dict[TrackedChain, _Chain] = {}

    def apply(self, delivery: Delivery) -> Mirrored:
        """Bring MLflow to where the delivery says. Raises whatever MLflow raises; then nothing is marked complete."""
        run = delivery.run
        experiment_id = self._experiment(run.chain.pipeline)
        chain = self._chain(experiment_id, run)
        child = self._find(experiment_id, run_key(run))
        if isinstance(delivery, Promoted | Demoted):
            if isinstance(delivery, Promoted):
                self._registry.promote(delivery, child.info.run_id if child else None)
            else:
                self._registry.demote(delivery)
            return Mirrored(experiment_id, chain.id, child.info.run_id if child else chain.id)
        if child is None:
            name = f"{run.dag_id} #{run.run_number}" if run.run_number else run.run_id
            child = self._create(experiment_id, name, mlflow_fields.run_tags(run), run, parent=chain.id)
        if child.data.tags.get(DELIVERED) != mlflow_fields.delivered_mark(delivery):
            match delivery:
                case RunStarted():
                    self._start(delivery, chain, child)
                case RunFinished():
                    self._finish(delivery, chain, child, experiment_id)
        return Mirrored(experiment_id, chain.id, child.info.run_id)

    def forget(self) -> None:
        """Drop every remembered id: a person may have deleted a run or an experiment in MLflow."""
        self._experiments.clear()
        self._chains.clear()

    # -- the kinds of delivery -------------------------------------------------------------------------------------

    def _start(self, started: RunStarted, chain: _Chain, child: MlflowRun) -> None:
        run = started.run
        ended_at = _time_tag(child, "trainflow.ended_at")
        if ended_at is not None and run.started_at <= ended_at:
            return  # told late: its end is known already
        if ended_at is not None:  # cleared: it runs again, in the same MLflow run
            self._client.update_run(child.info.run_id, status="RUNNING")
        self._write(
            child.info.run_id, _missing(child, mlflow_fields.params(run)), [], mlflow_fields.with_mark({}, started)
        )
        if chain.status != "RUNNING" and (chain.told_at is None or run.started_at >= chain.told_at):
            self._client.update_run(chain.id, status="RUNNING")
            chain.status = "RUNNING"

    def _finish(self, finished: RunFinished, chain: _Chain, child: MlflowRun, experiment_id: str) -> None:
        run_id = child.info.run_id
        self._tell_chain(finished, chain)
        entry = mlflow_fields.dataset(finished)
        if entry is not None:
            source = Dataset(entry.name, entry.digest, entry.source_type, entry.source, profile=entry.profile)
            self._client.log_inputs(run_id, [DatasetInput(source, [InputTag("mlflow.data.context", "training")])])
        # the real end, whatever user code that opened the run through MLFLOW_RUN_ID left behind
        self._client.set_terminated(run_id, _STATUS[finished.state], milliseconds(finished.ended_at))
        tags = mlflow_fields.with_mark(mlflow_fields.finished_tags(finished), finished)
        self._link_checkpoint(finished, experiment_id, run_id)
        points = [
            point for point in mlflow_fields.run_points(finished) if child.data.metrics.get(point.name) != point.value
        ]
        points += mlflow_fields.progress_points(finished)
        self._write(run_id, _missing(child, mlflow_fields.params(finished.run)), points, tags)

    def _tell_chain(self, finished: RunFinished, chain: _Chain) -> None:
        mark, status = mlflow_fields.delivered_mark(finished), _STATUS[finished.state]
        if chain.mark == mark:
            return
        if chain.told_at is not None and finished.ended_at < chain.told_at:  # an older one: its points, not its head
            self._write(chain.id, {}, mlflow_fields.chain_points(finished), {})
            return
        self._client.set_terminated(chain.id, status, milliseconds(finished.ended_at))
        described = chain_description(finished.run)
        tags = {**mlflow_fields.head_tags(finished), **described, _TOLD_AT: iso(finished.ended_at), DELIVERED: mark}
        self._write(chain.id, {}, mlflow_fields.chain_points(finished), tags)
        chain.status, chain.told_at, chain.mark = status, finished.ended_at, mark

    def _link_checkpoint(self, finished: RunFinished, experiment_id: str, run_id: str) -> None:
        if finished.checkpoint is not None:
            self._models.link(finished, experiment_id, run_id)

    # -- finding and making ----------------------------------------------------------------------------------------

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._ensure_experiment(name)
        return self._experiments[name]

    def _ensure_experiment(self, name: str) -> str:
        experiment: Experiment | None = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = None if self._artifact_root is None else f"{self._artifact_root.rstrip('/')}/{name}"
            try:
                tags: dict[str, Any] = {**mlflow_fields.EXPERIMENT_TAGS}
                return str(self._client.create_experiment(name, artifact_location=location, tags=tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(name)  # another engine was faster
                assert experiment is not None
        if experiment.lifecycle_stage == "deleted":  # the pipeline lives on, so does its mirror
            self._client.restore_experiment(experiment.experiment_id)
        for key, value in mlflow_fields.EXPERIMENT_TAGS.items():
            if key not in experiment.tags:
                self._client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def _chain(self, experiment_id: str, run: TrackedRun) -> _Chain:
        known = self._chains.get(run.chain)
        if known is None:
            found = self._find(experiment_id, chain_key(run.chain))
            if found is None:
                name = f"{run.chain.pipeline}/{run.chain.stage}/{run.chain.branch}"
                found = self._create(experiment_id, name, mlflow_fields.chain_tags(run), run)
            known = self._chains[run.chain] = _Chain(
                found.info.run_id, found.info.status, _time_tag(found, _TOLD_AT), found.data.tags.get(DELIVERED)
            )
        return known

    def _find(self, experiment_id: str, key: str) -> MlflowRun | None:
        # the oldest, should two engines ever have made two
        found = self._client.search_runs(
            [experiment_id], f"tags.`{RUN_KEY}` = '{key}'", max_results=1, order_by=["attributes.start_time ASC"]
        )
        return found[0] if found else None

    def _create(
        self, experiment_id: str, name: str, tags: Tags, run: TrackedRun, parent: str | None = None
    ) -> MlflowRun:
        tags = {**tags, "mlflow.source.type": "JOB", "mlflow.user": _user()}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        return self._client.create_run(experiment_id, milliseconds(run.started_at), tags, name)

    def _write(self, run_id: str, params: dict[str, str], points: list[Point], tags: Tags) -> None:
        """Write everything in as few requests as MLflow's limits allow, tags in the last: MLflow writes the params of a
        request first, then its metrics, then its tags."""
        batches = [*_parts(params.items(), _MOST_PARAMS)] or [[]]
        for batch in batches[:-1]:
            self._client.log_batch(run_id, params=[Param(*item) for item in batch])
        *earlier, last = [*_parts(points, _MOST_METRICS)] or [[]]
        for part in earlier:
            self._client.log_batch(run_id, metrics=_metrics(part))
        self._client.log_batch(
            run_id,
            metrics=_metrics(last),
            params=[Param(*item) for item in batches[-1]],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )


def _missing(child: MlflowRun, params: dict[str, str]) -> dict[str, str]:
    """Params MLflow does not have yet. The others stay as they are: it holds them immutable, whatever wrote them."""
    return {name: value for name, value in params.items() if name not in child.data.params}


def _time_tag(run: MlflowRun, name: str) -> datetime | None:
    text = run.data.tags.get(name)
    return None if text is None else datetime.fromisoformat(text)


def _metrics(points: Iterable[Point]) -> list[Metric]:
    return [Metric(point.name, point.value, point.timestamp, point.step) for point in points]


def _parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    everything = list(items)
    for start in range(0, len(everything), size):
        yield everything[start : start + size]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container with a user id that has no name
        return "unknown"
