"""Checkpoints as MLflow's logged models: what a run made, from which checkpoint and on which split. Imported by the
deliverer's process alone.

A logged model is found again by the checkpoint's id. Its files stay where they are: a tag says where.
"""

from __future__ import annotations

import logging

from mlflow.entities import LoggedModel, LoggedModelInput, LoggedModelOutput, Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient

from trainflow.observability.redaction import redact_text
from trainflow.tracking import mlflow_fields
from trainflow.tracking.deliveries import RunFinished, TrackedCheckpoint
from trainflow.tracking.names import iso, model_name

log = logging.getLogger("trainflow.tracking.deliverer")

CHECKPOINT = "trainflow.checkpoint_id"
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
            [experiment_id], f"tags.`{CHECKPOINT}` = '{checkpoint_id}'", max_results=1
        )
        return found[0] if found else None

    def _create(
        self, finished: RunFinished, checkpoint: TrackedCheckpoint, experiment_id: str, run_id: str
    ) -> LoggedModel:
        tags = {
            CHECKPOINT: checkpoint.checkpoint_id,
            "trainflow.checkpoint": str(checkpoint.number),
            "trainflow.checkpoint_uri": redact_text(checkpoint.uri),
            "trainflow.watermark": iso(checkpoint.watermark),
        }
        name = f"{model_name(finished.run.chain)}-{checkpoint.number}".replace("/", "-").replace(":", "-")
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
