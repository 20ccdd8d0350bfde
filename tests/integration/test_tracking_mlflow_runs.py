"""The mirror against a real MLflow over SQLite, in this process. One store for the whole file, one pipeline a test."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.mlflow_runs import AT, FIRST, finish_of, run_of, runs_of
from tests.support.http_servers import serving_application
from trainflow.actions.mlflow_server import MlflowServer
from trainflow.tracking.deliveries import (
    AliasMoved,
    Demoted,
    Promoted,
    RunStarted,
    TrackedChain,
    TrackedRun,
)
from trainflow.tracking.names import milliseconds
from trainflow.tracking.ui import ServerCommand, chain_url, server_url

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

    from trainflow.tracking.mlflow_runs import Mirror

# MLflow 3.17 uses what SQLAlchemy 2.1 and others have deprecated: theirs to mend, and only here do we import it
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture(scope="module")
def client(store: Path) -> MlflowClient:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking.client import MlflowClient

        return MlflowClient(tracking_uri=f"sqlite:///{store}")


@pytest.fixture
def new_mirror(client: MlflowClient, store: Path) -> Callable[[], Mirror]:
    """A mirror as a deliverer that has just been started has it: it remembers nothing."""
    from trainflow.tracking.mlflow_runs import Mirror

    return lambda: Mirror(client, (store.parent / "artifacts").as_uri())


@pytest.fixture
def mirror(new_mirror: Callable[[], Mirror]) -> Mirror:
    return new_mirror()


@pytest.fixture
def pipeline(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def test_chain_is_one_parent_with_one_child_run_and_curve(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    for number in (1, 2, 3):
        run = run_of(pipeline, number)
        mirror.apply(RunStarted(run))
        mirror.apply(finish_of(run))

    (parent,) = runs_of(client, pipeline, "chain")
    children = runs_of(client, pipeline, "run")
    assert [child.data.tags["mlflow.parentRunId"] for child in children] == [parent.info.run_id] * 3
    assert [child.info.status for child in children] == ["FINISHED"] * 3
    assert [child.info.start_time for child in children] == [
        milliseconds(AT + timedelta(hours=number)) for number in (1, 2, 3)
    ]
    assert children[0].info.end_time == milliseconds(AT + timedelta(hours=1, minutes=10))
    assert children[0].data.params == {"lr": "0.1", "db.password": "***"}
    assert children[0].data.tags["trainflow.checkpoint_uri"] == "file:///c/1"
    curve = client.get_metric_history(parent.info.run_id, "prequential/auc")
    assert [(point.step, point.value) for point in curve] == [(1, 0.61), (2, 0.62), (3, 0.63)]
    assert curve[0].timestamp == milliseconds(FIRST + timedelta(days=1))
    assert parent.data.tags["trainflow.head_checkpoint"] == "3"
    assert parent.data.tags["trainflow.watermark"] == "2013-01-04T00:00:00Z"
    assert parent.info.status == "FINISHED"
    assert [len(client.get_run(child.info.run_id).inputs.dataset_inputs) for child in children] == [1, 1, 1]


def test_experiments_are_of_training(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    client.create_experiment(pipeline)
    for name in (pipeline, f"{pipeline} made here"):
        mirror.apply(RunStarted(run_of(name, 1)))
        assert client.get_experiment_by_name(name).tags["mlflow.experimentKind"] == "custom_model_development"


def test_server_names_the_page_of_each_chain(
    mirror: Mirror, client: MlflowClient, pipeline: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{store}")
    from mlflow.server import app

    mirror.apply(RunStarted(run_of(pipeline, 1)))
    (parent,) = runs_of(client, pipeline, "chain")
    with serving_application(app) as port:
        url = server_url("127.0.0.1", port)
        pages = MlflowServer(ServerCommand([], {}, url), "127.0.0.1", port, store).chain_pages()
    (page,) = (page for page in pages if page.name.startswith(f"{pipeline}/"))
    assert page.url == chain_url(url, parent.info.experiment_id, parent.info.run_id)


def test_delivering_everything_again_changes_nothing(
    new_mirror: Callable[[], Mirror], client: MlflowClient, store: Path, pipeline: str
) -> None:
    from trainflow.tracking.mlflow_runs import Mirror

    runs = [run_of(pipeline, number) for number in (1, 2)]
    deliveries = [delivery for run in runs for delivery in (RunStarted(run), finish_of(run))]
    first = new_mirror()
    ids = [first.apply(delivery) for delivery in deliveries]
    before = content_of(store)
    again = Mirror(DyingClient(client, 1))  # type: ignore[arg-type]  # dies of the first write
    assert [again.apply(delivery) for delivery in deliveries] == ids
    assert content_of(store) == before


def test_mirror_same_end_in_other_words_adds_no_point(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    """As after the metadata database was lost and the ledger was mirrored anew: other times, same commits."""
    run = run_of(pipeline, 1)
    mirror.apply(finish_of(run))
    mirror.apply(finish_of(run, ended_at=run.started_at + timedelta(days=1), note="told again"))
    (parent,), (child,) = runs_of(client, pipeline, "chain"), runs_of(client, pipeline, "run")
    for entry in (parent, child):
        assert len(client.get_metric_history(entry.info.run_id, "prequential/auc")) == 1
    assert child.data.tags["trainflow.note"] == "told again"


def content_of(store: Path) -> dict[str, list[Any]]:
    """Every row MLflow holds, read behind its back."""
    tables = ("experiments", "runs", "params", "tags", "metrics", "latest_metrics", "datasets", "inputs")
    with closing(sqlite3.connect(store)) as database:
        return {table: sorted(map(repr, database.execute(f"SELECT * FROM {table}"))) for table in tables}


class Killed(BaseException):
    """Stands for SIGKILL: nothing on the way may handle it."""


class DyingClient:
    """Passes on every call to MLflow, and dies right after the `last`-th one that writes."""

    WRITES = ("create_experiment", "create_run", "log_batch", "log_inputs", "set_terminated", "update_run")

    def __init__(self, client: MlflowClient, last: int) -> None:
        self._client, self._left = client, last

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        return self._dying(call) if name in self.WRITES else call

    def _dying(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def passed_on(*args: Any, **kwargs: Any) -> Any:
            answer = call(*args, **kwargs)
            self._left -= 1
            if self._left == 0:
                raise Killed
            return answer

        return passed_on


@pytest.mark.exhaustive
def test_death_after_any_write_costs_repetition_and_nothing_else(
    client: MlflowClient, new_mirror: Callable[[], Mirror], pipeline: str
) -> None:
    from trainflow.tracking.mlflow_runs import Mirror

    deaths = 0
    for last in range(1, 100):
        name = f"{pipeline}_{last}"
        run = run_of(name, 1)
        dying = Mirror(DyingClient(client, last))  # type: ignore[arg-type]
        try:
            dying.apply(RunStarted(run))
            dying.apply(finish_of(run))
        except Killed:
            deaths += 1
        else:
            break
        new_mirror().apply(RunStarted(run))
        new_mirror().apply(finish_of(run))
        (parent,), (child,) = runs_of(client, name, "chain"), runs_of(client, name, "run")
        assert child.info.status == parent.info.status == "FINISHED"
        assert child.data.params == {"lr": "0.1", "db.password": "***"}
        assert len(client.get_run(child.info.run_id).inputs.dataset_inputs) == 1
        for entry in (parent, child):
            assert [point.step for point in client.get_metric_history(entry.info.run_id, "prequential/auc")] == [1]
    assert deaths >= 8  # experiment, parent, child, start, then the five writes of the end


def test_deliveries_out_of_order_end_in_same_place(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    first, second = run_of(pipeline, 1), run_of(pipeline, 2)
    mirror.apply(finish_of(second))
    mirror.apply(RunStarted(second))
    mirror.apply(finish_of(first))
    mirror.apply(RunStarted(first))
    (parent,) = runs_of(client, pipeline, "chain")
    assert parent.data.tags["trainflow.head_checkpoint"] == "2"
    assert parent.info.end_time == milliseconds(second.started_at + timedelta(minutes=10))
    assert [child.info.status for child in runs_of(client, pipeline, "run")] == ["FINISHED", "FINISHED"]
    curve = client.get_metric_history(parent.info.run_id, "prequential/auc")
    assert sorted(point.step for point in curve) == [1, 2]


def test_mirror_failed_run_fails_on_both_levels_and_adds_no_point(
    mirror: Mirror, client: MlflowClient, pipeline: str
) -> None:
    run = run_of(pipeline, 1)
    mirror.apply(RunStarted(run))
    mirror.apply(finish_of(run, state="failed", checkpoint=None, evaluation={"auc": None}))
    (parent,), (child,) = runs_of(client, pipeline, "chain"), runs_of(client, pipeline, "run")
    assert (parent.info.status, child.info.status) == ("FAILED", "FAILED")
    assert client.get_metric_history(parent.info.run_id, "prequential/auc") == []
    assert math.isnan(child.data.metrics["prequential/auc"])
    assert "trainflow.head_checkpoint" not in parent.data.tags


def test_cleared_run_goes_on_in_its_mlflow_run(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    run = run_of(pipeline, 1)
    mirror.apply(RunStarted(run))
    mirror.apply(finish_of(run, state="failed", checkpoint=None))
    again = run_of(pipeline, 1, started_at=AT + timedelta(days=1), params={"lr": 0.2, "new": 1})
    mirror.apply(RunStarted(again))
    (parent,), (child,) = runs_of(client, pipeline, "chain"), runs_of(client, pipeline, "run")
    assert (parent.info.status, child.info.status) == ("RUNNING", "RUNNING")
    mirror.apply(finish_of(again))
    (child,) = runs_of(client, pipeline, "run")
    assert child.info.status == "FINISHED"
    assert child.data.tags["trainflow.state"] == "success"
    assert child.data.params == {"lr": "0.1", "db.password": "***", "new": "1"}  # MLflow's params are immutable


def test_mirror_logs_of_user_code_stay_however_they_leave_run(
    mirror: Mirror, client: MlflowClient, store: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    run = run_of(pipeline, 1)
    monkeypatch.setenv("MLFLOW_RUN_ID", mirror.apply(RunStarted(run)).run_id)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{store}")
    try:
        mlflow.log_metric("loss", 0.9, step=1)
        mlflow.log_metric("loss", 0.8, step=2)
        mlflow.log_param("lr", 0.1)
        mlflow.log_param("mine", "x")
        mlflow.end_run("FAILED")  # what MLflow does at the exit of the process
    finally:
        mlflow.set_tracking_uri(before)
    mirror.apply(finish_of(run))
    (child,) = runs_of(client, pipeline, "run")
    assert child.info.status == "FINISHED"
    assert child.info.end_time == milliseconds(run.started_at + timedelta(minutes=10))
    assert child.data.params == {"lr": "0.1", "db.password": "***", "mine": "x"}
    assert [point.value for point in client.get_metric_history(child.info.run_id, "loss")] == [0.9, 0.8]
    assert child.data.metrics["train/loss"] == 0.3


def test_mirror_more_than_one_request_holds_is_sent_in_several(
    mirror: Mirror, client: MlflowClient, pipeline: str
) -> None:
    run = run_of(pipeline, 1, params={f"p{index}": index for index in range(250)})
    mirror.apply(finish_of(run, training={f"m{index}": float(index) for index in range(1100)}))
    (child,) = runs_of(client, pipeline, "run")
    assert len(child.data.params) == 250
    assert sum(name.startswith("train/") for name in child.data.metrics) == 1100


def test_mirror_other_store_is_other_chain_and_deleted_experiment_comes_back(
    mirror: Mirror, new_mirror: Callable[[], Mirror], client: MlflowClient, pipeline: str
) -> None:
    here = run_of(pipeline, 1)
    there = run_of(pipeline, 1, chain=TrackedChain(pipeline, store="s3://b/c"))
    ids = mirror.apply(RunStarted(here))
    client.delete_experiment(ids.experiment_id)
    moved = new_mirror().apply(RunStarted(there))
    assert moved.experiment_id == ids.experiment_id
    assert moved.chain_run_id != ids.chain_run_id


@pytest.fixture(scope="module", autouse=True)
def _closed(client: MlflowClient) -> Iterator[None]:
    """Give the connections back: an unclosed one is a warning, and warnings are errors."""
    yield
    client._tracking_client.store.engine.dispose()


# -- the model registry --------------------------------------------------------------------------------------------


def promoted_of(run: TrackedRun, alias: str = "champion") -> Promoted:
    checkpoint = finish_of(run).checkpoint
    assert checkpoint is not None
    return Promoted(run, alias, checkpoint)


def test_promotion_is_version_of_chains_model_with_alias(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    run = run_of(pipeline, 1)
    mirror.apply(finish_of(run, promoted=["champion"]))

    mirrored = mirror.apply(promoted_of(run))

    version = client.get_model_version_by_alias(pipeline, "champion")
    assert (version.source, version.run_id) == ("file:///c/1", mirrored.run_id)
    assert version.tags["trainflow.checkpoint_id"] == "c1"
    assert version.tags["trainflow.watermark"] == "2013-01-02T00:00:00Z"
    assert client.get_run(mirrored.run_id).data.tags["trainflow.promoted"] == "champion"


def test_promoting_again_makes_no_second_version(
    new_mirror: Callable[[], Mirror], client: MlflowClient, pipeline: str
) -> None:
    run = run_of(pipeline, 1)
    for _ in range(2):
        mirror = new_mirror()
        mirror.apply(finish_of(run))
        mirror.apply(promoted_of(run))
    mirror.apply(promoted_of(run, "newest"))

    (version,) = client.search_model_versions(f"name = '{pipeline}'")
    aliases = client.get_registered_model(pipeline).aliases
    assert aliases == {"champion": version.version, "newest": version.version}


@pytest.mark.parametrize(
    ("promoted", "lost", "now", "left"),
    [
        ([1, 2], ["c2"], 1, "c1"),
        ([1, 2], ["c2"], None, None),
        # told late: it was promoted since
        ([1, 2, 3], ["c2"], 1, "c3"),
        # not every move was heard of
        ([1, 3], ["c3", "c2"], 1, "c1"),
        # who has it again was never told of
        ([2], ["c2"], 1, "c1"),
        # nothing was ever promoted
        ([], ["c2"], None, None),
        ([], ["c2"], 1, None),
    ],
)
def test_mirror_rewind_removes_aliases_of_checkpoint(
    mirror: Mirror,
    client: MlflowClient,
    pipeline: str,
    promoted: list[int],
    lost: list[str],
    now: int | None,
    left: str | None,
) -> None:
    for number in promoted:
        mirror.apply(promoted_of(run_of(pipeline, number)))
    again = None if now is None else promoted_of(run_of(pipeline, now)).checkpoint
    for _ in range(2):
        mirror.apply(Demoted(run_of(pipeline, 4), AliasMoved("champion", lost, again)))

    aliases = client.get_registered_model(pipeline).aliases if promoted else {}
    tags = {alias: client.get_model_version(pipeline, number).tags for alias, number in aliases.items()}
    assert {alias: each["trainflow.checkpoint_id"] for alias, each in tags.items()} == (
        {"champion": left} if left else {}
    )


def test_alias_moves_and_may_come_back(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    runs = [run_of(pipeline, number) for number in (1, 2)]
    for run in (*runs, runs[0]):
        mirror.apply(promoted_of(run))

    version = client.get_model_version_by_alias(pipeline, "champion")
    assert version.tags["trainflow.checkpoint_id"] == "c1"
    # MLflow never had a run of it
    assert not version.run_id


def test_stage_is_model_of_its_own(mirror: Mirror, client: MlflowClient, pipeline: str) -> None:
    chains = [TrackedChain(pipeline, "fine"), TrackedChain(pipeline, "fine", "b"), TrackedChain(pipeline, "main", "b")]
    for chain in chains:
        mirror.apply(promoted_of(run_of(pipeline, 1, chain=chain)))

    names = {model.name for model in client.search_registered_models(f"name LIKE '{pipeline}.%'")}
    assert names == {f"{pipeline}.fine", f"{pipeline}.fine.b", f"{pipeline}.main.b"}
