"""Promotions in MLflow's model registry: a version for a checkpoint, and the alias on it. Imported by the deliverer's
process alone.

Every step can be repeated: a version is looked for by its checkpoint before it is made, and an alias names one version.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient

from trainflow.observability.redaction import redact_text
from trainflow.tracking.deliveries import Demoted, Promoted
from trainflow.tracking.names import iso, model_name

#: how a version is found again
CHECKPOINT = "trainflow.checkpoint_id"
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
        if version is None or version.tags.get(CHECKPOINT) not in moved.lost:
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
        found = self._client.search_model_versions(f"name = '{name}' and tags.`{CHECKPOINT}` = '{checkpoint_id}'")
        return min(found, key=lambda version: int(version.version)) if found else None

    def _create(self, name: str, promoted: Promoted, run_id: str | None) -> ModelVersion:
        checkpoint = promoted.checkpoint
        uri = redact_text(checkpoint.uri)
        tags = {
            CHECKPOINT: checkpoint.checkpoint_id,
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
