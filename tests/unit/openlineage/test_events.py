"""Events, beside OpenLineage's own client: the same names, keys and schemas."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from openlineage.client import event_v2, facet_v2
from openlineage.client.serde import Serde

from trainflow.openlineage.events import (
    LineageChain,
    LineageCheckpoint,
    LineageRun,
    LineageSplit,
    ListedPartition,
    RunBegan,
    RunEnded,
    dataset_name,
    event_of,
    run_uuid,
)

AT = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
CHAIN = LineageChain("s3://key:secret@bucket/models", "flights", "main", "main")
RUN = LineageRun(
    namespace="prod",
    dag_id="flights",
    run_id="r1",
    clear_number=0,
    queued_at=AT,
    started_at=AT,
    file="pipelines/flights.yaml",
    description="delays",
    page="http://127.0.0.1:8080/dags/flights/runs/r1",
)
SPLIT = LineageSplit(
    table="s3://bucket/clicks/date={start:%Y-%m-%d}/",
    start=datetime(2025, 1, 1, tzinfo=UTC),
    end=datetime(2025, 1, 3, tzinfo=UTC),
    partitions=2,
    holes=0,
    digest="sha256:ab",
    files=4,
    rows=10,
    size_bytes=100,
    listed=[ListedPartition(datetime(2025, 1, 1, tzinfo=UTC), "f1")],
)
PARENT = LineageCheckpoint(CHAIN, "c1", 1, SPLIT.start)
ENDED = RunEnded(
    run=RUN,
    state="success",
    ended_at=AT,
    split=SPLIT,
    parent=PARENT,
    checkpoint=LineageCheckpoint(CHAIN, "c2", 2, SPLIT.end, {"auc": 0.5, "loss": None}, ["champion"]),
)
FAILED = RunEnded(run=RUN, state="failed", ended_at=AT, why="train: boom")
CANCELLED = RunEnded(run=RUN, state="cancelled", ended_at=AT, why="enough")
FACTS = [RunBegan(RUN), ENDED, FAILED, CANCELLED]
#: name of a facet → the class of the client that makes it
CLASSES = {
    "nominalTime": facet_v2.nominal_time_run.NominalTimeRunFacet,
    "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
    "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "documentation": facet_v2.documentation_job.DocumentationJobFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def made_by_client(event: dict[str, Any]) -> dict[str, Any]:
    """The same event, put together from the classes of OpenLineage's client, which check what they are given."""
    event_v2.set_producer(event["producer"])
    made = event_v2.RunEvent(
        eventType=event_v2.RunState(event["eventType"]),
        eventTime=event["eventTime"],
        run=event_v2.Run(runId=event["run"]["runId"], facets=_facets(event["run"]["facets"])),
        job=event_v2.Job(event["job"]["namespace"], event["job"]["name"], facets=_facets(event["job"]["facets"])),
        inputs=[
            event_v2.InputDataset(
                each["namespace"],
                each["name"],
                facets=_facets(each["facets"]),
                inputFacets=_facets(each.get("inputFacets", {})),
            )
            for each in event["inputs"]
        ],
        outputs=[
            event_v2.OutputDataset(
                each["namespace"],
                each["name"],
                facets=_facets(each["facets"]),
                outputFacets=_facets(each.get("outputFacets", {})),
            )
            for each in event["outputs"]
        ],
        producer=event["producer"],
    )
    return Serde.to_dict(made)


def _facets(facets: dict[str, Any]) -> dict[str, Any]:
    """Ours alone as they are; those of the standard, made anew."""
    made = {}
    for name, facet in facets.items():
        values = {key: value for key, value in facet.items() if not key.startswith("_")}
        made[name] = CLASSES[name](**values) if name in CLASSES else facet
    return made


def _without_empty(value: Any) -> Any:
    """The client writes facets that are empty, we do not."""
    if isinstance(value, dict):
        return {key: _without_empty(each) for key, each in value.items() if each not in ({}, None)}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("told", FACTS, ids=["start", "complete", "fail", "abort"])
def test_event_is_what_openlineages_client_makes(told: RunBegan | RunEnded) -> None:
    event = msgspec.json.decode(msgspec.json.encode(event_of(told)))
    assert _without_empty(event) == _without_empty(made_by_client(event))


@pytest.mark.parametrize("told", FACTS, ids=["start", "complete", "fail", "abort"])
def test_facets_that_are_ours_have_what_each_facet_has(told: RunBegan | RunEnded) -> None:
    text = msgspec.json.encode(event_of(told)).decode()
    event = msgspec.json.decode(text)
    ours = {name: facet for name, facet in event["run"]["facets"].items() if name not in CLASSES}
    assert ours
    known = {kind.__name__ for _, kind in inspect.getmembers(event_v2, inspect.isclass)} | {"RunFacet"}
    for name, facet in ours.items():
        assert name.startswith("trainflow_")
        assert facet["_schemaURL"].rpartition("/")[2] in known
        assert facet["_producer"] == event["producer"]
    assert "secret" not in text


def test_event_names_table_and_parent_as_inputs_and_checkpoint_as_output() -> None:
    event = event_of(ENDED)
    assert [(each["namespace"], each["name"]) for each in event["inputs"]] == [
        ("s3://bucket", "clicks"),
        ("s3://bucket", "models/flights/main/main"),
    ]
    (output,) = event["outputs"]
    assert output["facets"]["version"]["datasetVersion"] == "c2"
    assert event["inputs"][1]["facets"]["version"]["datasetVersion"] == "c1"
    assert event["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 10


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/clicks/", ("file", "/data/clicks")),
        ("file:///data/clicks", ("file", "/data/clicks")),
        ("s3://bucket/a/b/", ("s3://bucket", "a/b")),
        ("gs://bucket", ("gs://bucket", "/")),
        ("abfss://box@account.dfs.core.windows.net/a", ("abfss://box@account.dfs.core.windows.net", "a")),
    ],
)
def test_dataset_name_follows_openlineages_rules(url: str, expected: tuple[str, str]) -> None:
    assert dataset_name(url) == expected


def test_run_uuid_is_of_version_seven_and_of_its_run_alone() -> None:
    found = run_uuid(RUN)
    assert found.version == 7
    assert found == run_uuid(msgspec.structs.replace(RUN, page=None))
    assert found != run_uuid(msgspec.structs.replace(RUN, clear_number=1))
    assert found.int >> 80 == int(AT.timestamp() * 1000)
