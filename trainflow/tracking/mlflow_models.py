"""Checkpoints as MLflow's models: logged models of the runs that made them, and versions in the model registry for
those that were promoted. Imported by the deliverer's process alone.

A logged model is found again by the checkpoint's id. Its files stay where they are: a tag says where. Every step can be
repeated: a version is looked for by its checkpoint before it is made, and an alias names one version.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.entities import LoggedModel, LoggedModelInput, LoggedModelOutput, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient

from trainflow.observability.redaction import redact_text
from trainflow.tracking import mlflow_fields
from trainflow.tracking.deliveries import Demoted, Promoted, RunFinished, TrackedCheckpoint
from trainflow.tracking.names import iso, logged_model_name, model_name

#: how a version and a logged model are found again
_CHECKPOINT = "trainflow.checkpoint_id"
#: there is none here, or not for us
_NO_REGISTRY = {"FEATURE_DISABLED", "NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND", "PERMISSION_DENIED"}


@contextmanager
def _unless_there_is_none() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code in _NO_REGISTRY or type(error).__name__.startswith("Unsupported"):
            # trying again would hold up everything behind it for ever
            raise ValueError(f"the model registry does not take promotions: {error}") from error
        raise


class Registry:
    """The model registry beside a tracking store. A chain is a registered model."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    @_unless_there_is_none()
    def promote(self, promoted: Promoted, run_id: str | None) -> str:
        """Make the alias name the checkpoint; its version. `run_id`: the MLflow run that trained it, where there is
        one. Raises whatever MLflow raises."""
        name = model_name(promoted.run.chain)
        self._ensure_model(name, promoted)
        version = self._find(name, promoted.checkpoint.checkpoint_id) or self._create(name, promoted, run_id)
        self._client.set_registered_model_alias(name, promoted.alias, version.version)
        return str(version.version)

    @_unless_there_is_none()
    def demote(self, demoted: Demoted) -> None:
        """Take the alias from a checkpoint that a rewind left behind: the one that has it again gets it, or none.
        Where it names another one, that was promoted since. Raises whatever MLflow raises."""
        name, moved = model_name(demoted.run.chain), demoted.moved
        version = self._named(name, moved.alias)
        if version is None or version.tags.get(_CHECKPOINT) not in moved.lost:
            return
        if moved.now is None:
            self._client.delete_registered_model_alias(name, moved.alias)
            return
        self.promote(Promoted(demoted.run, moved.alias, moved.now), None)

    def _named(self, name: str, alias: str) -> ModelVersion | None:
        try:
            return self._client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            # a model or an alias that is not there
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def _ensure_model(self, name: str, promoted: Promoted) -> None:
        chain = promoted.run.chain
        tags = {"trainflow.pipeline": chain.pipeline, "trainflow.stage": chain.stage, "trainflow.branch": chain.branch}
        try:
            self._client.create_registered_model(name, tags={**tags, "trainflow.store": redact_text(chain.store)})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _find(self, name: str, checkpoint_id: str) -> ModelVersion | None:
        found = self._client.search_model_versions(f"name = '{name}' and tags.`{_CHECKPOINT}` = '{checkpoint_id}'")
        return min(found, key=lambda version: int(version.version)) if found else None

    def _create(self, name: str, promoted: Promoted, run_id: str | None) -> ModelVersion:
        checkpoint = promoted.checkpoint
        uri = redact_text(checkpoint.uri)
        tags = {
            _CHECKPOINT: checkpoint.checkpoint_id,
            "trainflow.checkpoint_uri": uri,
            "trainflow.checkpoint": str(checkpoint.number),
            "trainflow.watermark": iso(checkpoint.watermark),
            "trainflow.run_id": promoted.run.run_id,
        }
        about = f"checkpoint {checkpoint.number}, trained up to {iso(checkpoint.watermark)}"
        try:
            return self._client.create_model_version(name, uri, run_id, tags=tags, description=about)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE" or run_id is None:
                raise
        # a server takes a local path only from inside the run's own artifacts; where it really is, the tag says
        inside = self._client.get_run(run_id).info.artifact_uri
        return self._client.create_model_version(name, inside, run_id, tags=tags, description=about)


log = logging.getLogger("trainflow.tracking.deliverer")

#: a server of MLflow 2, or one that keeps no logged models
_NONE_HERE = {"FEATURE_DISABLED", "NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND"}


class LoggedModels:
    """The logged models of a tracking store, where it has any."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._are_there = True

    def link(self, finished: RunFinished, experiment_id: str, run_id: str) -> None:
        """Make the checkpoint that a run committed a logged model, the run's output, and its parent the run's input.
        Again, it changes nothing. Raises whatever MLflow raises."""
        checkpoint = finished.checkpoint
        if checkpoint is None or not self._are_there:
            return
        try:
            self._link(finished, checkpoint, experiment_id, run_id)
        except MlflowException as error:
            if error.error_code not in _NONE_HERE:
                raise
            self._are_there = False
            log.info("this MLflow keeps no logged models: checkpoints are named by tags alone")

    def _link(self, finished: RunFinished, checkpoint: TrackedCheckpoint, experiment_id: str, run_id: str) -> None:
        model = self._find(experiment_id, checkpoint.checkpoint_id)
        if model is None:
            model = self._create(finished, checkpoint, experiment_id, run_id)
        run = self._client.get_run(run_id)
        # MLflow refuses to be told the same twice
        made = {each.model_id for each in run.outputs.model_outputs} if run.outputs else set()
        read = {each.model_id for each in run.inputs.model_inputs} if run.inputs else set()
        if model.model_id not in made:
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, checkpoint.number)])
        parent = self._find(experiment_id, checkpoint.parent_id) if checkpoint.parent_id else None
        if parent is not None and parent.model_id not in read:
            self._client.log_inputs(run_id, models=[LoggedModelInput(parent.model_id)])
        self._measure(finished, model, run_id)
        self._client.finalize_logged_model(model.model_id, "READY")

    def _find(self, experiment_id: str, checkpoint_id: str) -> LoggedModel | None:
        found = self._client.search_logged_models(
            [experiment_id], f"tags.`{_CHECKPOINT}` = '{checkpoint_id}'", max_results=1
        )
        return found[0] if found else None

    def _create(
        self, finished: RunFinished, checkpoint: TrackedCheckpoint, experiment_id: str, run_id: str
    ) -> LoggedModel:
        tags = {
            _CHECKPOINT: checkpoint.checkpoint_id,
            "trainflow.checkpoint": str(checkpoint.number),
            "trainflow.checkpoint_uri": redact_text(checkpoint.uri),
            "trainflow.watermark": iso(checkpoint.watermark),
        }
        name = logged_model_name(finished.run.chain, checkpoint.number)
        return self._client.create_logged_model(
            experiment_id, name, run_id, tags=tags, params=mlflow_fields.params(finished.run), model_type="trainflow"
        )

    def _measure(self, finished: RunFinished, model: LoggedModel, run_id: str) -> None:
        """The metrics of a model are of the split that it was trained on."""
        entry = mlflow_fields.dataset(finished)
        if entry is None:
            return
        points = [point for point in mlflow_fields.chain_points(finished) if point.name.startswith("train/")]
        metrics = [
            Metric(point.name, point.value, point.timestamp, point.step, model.model_id, entry.name, entry.digest)
            for point in points
        ]
        if metrics:
            self._client.log_batch(run_id, metrics=metrics)
