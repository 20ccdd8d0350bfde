"""Checkpoints as logged models of a real MLflow over SQLite, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.integration.mlflow_runs import finish_of, run_of
from trainflow.tracking.deliveries import TrackedChain
from trainflow.tracking.names import DELIVERED

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

    from trainflow.tracking.mlflow_runs import Mirror

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking.client import MlflowClient

        return MlflowClient(tracking_uri=f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


@pytest.fixture
def new_mirror(client: MlflowClient, tmp_path: Path) -> Callable[[], Mirror]:
    from trainflow.tracking.mlflow_runs import Mirror

    return lambda: Mirror(client, tmp_path.as_uri())


@pytest.fixture
def mirror(new_mirror: Callable[[], Mirror]) -> Mirror:
    return new_mirror()


@pytest.fixture
def pipeline(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.mark.exhaustive
def test_checkpoint_is_a_logged_model_of_its_run_and_an_input_of_the_next(
    new_mirror: Callable[[], Mirror], client: MlflowClient, pipeline: str
) -> None:
    finished = [finish_of(run_of(pipeline, number)) for number in (1, 2)]
    checkpoint = finished[1].checkpoint
    assert checkpoint is not None
    finished[1] = msgspec.structs.replace(
        finished[1], checkpoint=msgspec.structs.replace(checkpoint, parent_id="c1", partitions=2)
    )
    for _ in range(2):  # again, by a deliverer that remembers nothing and whose marks were lost
        for each in finished:
            mirrored = new_mirror().apply(each)
            client.delete_tag(mirrored.run_id, DELIVERED)
    models = {model.name: model for model in client.search_logged_models([mirrored.experiment_id])}
    assert sorted(name.rpartition("-")[2] for name in models) == ["1", "2"]
    first, second = (models[name] for name in sorted(models))
    assert second.tags["trainflow.checkpoint_id"] == "c2"
    assert str(second.status).endswith("READY")
    run = client.get_run(mirrored.run_id)
    assert [each.model_id for each in run.outputs.model_outputs] == [second.model_id]
    assert [each.model_id for each in run.inputs.model_inputs] == [first.model_id]
    (metric,) = client.get_logged_model(second.model_id).metrics or []
    assert (metric.key, metric.value) == ("train/loss", 0.3)
    assert metric.dataset_name is not None


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        (TrackedChain("flights", "tuned"), "flights-tuned-1"),
        (TrackedChain("delays", "main", "hot"), "delays-main-hot-1"),
        (TrackedChain("9_eu.west-1.2024..v2", "a.b", "-c_"), "9_eu-west-1-2024--v2-a-b--c_-1"),
    ],
)
def test_checkpoint_of_any_chain_is_a_logged_model(
    mirror: Mirror, client: MlflowClient, chain: TrackedChain, name: str
) -> None:
    """Names of chains have dots; those of logged models take fewer signs than all others of MLflow."""
    mirrored = mirror.apply(finish_of(run_of(chain.pipeline, 1, chain=chain)))
    run = client.get_run(mirrored.run_id)
    assert [client.get_logged_model(each.model_id).name for each in run.outputs.model_outputs] == [name]


@pytest.mark.exhaustive
def test_store_without_logged_models_gets_everything_else(
    mirror: Mirror, client: MlflowClient, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    error = MlflowException("no such endpoint")
    error.error_code = "ENDPOINT_NOT_FOUND"

    def missing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(client), "search_logged_models", missing)
    mirrored = mirror.apply(finish_of(run_of(pipeline, 1)))
    assert client.get_run(mirrored.run_id).data.tags["trainflow.checkpoint"] == "1"


def test_cancelled_run_is_killed(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    mirrored = mirror.apply(finish_of(run_of(pipeline, 1), state="cancelled", checkpoint=None))
    assert client.get_run(mirrored.run_id).info.status == "KILLED"
