"""The backfill of `flight_delay.yaml` written in Python: the same operators, and a chain of its own.

trainflow start pipelines/flight_delay_dag.py
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from operators import flight_delay, flights
from trainflow import DAG
from trainflow.checkpoints.upkeep.retention import KeepBest, KeepLatest
from trainflow.operators import (
    CheckpointOperator,
    Checks,
    CommitCheckpointOperator,
    DataCheckerOperator,
    EvaluateOperator,
    PythonOperator,
    Ready,
    Samples,
    SplitLimits,
    TrainOperator,
    TriggerDagRunOperator,
)

FLIGHTS = Samples(
    path="data/flights/date={start:%Y-%m-%d}/",
    length_seconds=86_400,
    start=datetime(2013, 1, 1, tzinfo=UTC),
    end=datetime(2014, 1, 1, tzinfo=UTC),
    ready=Ready(marker="_SUCCESS"),
    checks=Checks(min_rows=100, nulls={"carrier": 0.0, "distance": 0.0, "arr_delay": 0.8}),
)

with DAG(
    "flight_delay_dag",
    description="Arrival delays of the 336,776 flights that left New York in 2013",
    schedule=None,
    tags=["example", "backfill"],
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    params=flight_delay.DEFAULTS,
):
    prepare = PythonOperator(task_id="prepare", python_callable=flights.prepare)
    checkpoint = CheckpointOperator()
    samples = DataCheckerOperator(
        samples=FLIGHTS,
        limits=SplitLimits(partitions=14),
        checkpoint=checkpoint.output,
    )
    evaluate = EvaluateOperator(
        function=flight_delay.evaluate,
        checkpoint=checkpoint.output,
        split=samples.output,
    )
    train = TrainOperator(
        function=flight_delay.train,
        checkpoint=checkpoint.output,
        split=samples.output,
    )
    commit = CommitCheckpointOperator(
        checkpoint=checkpoint.output,
        split=samples.output,
        trained=train.output,
        evaluated=evaluate.output,
        gates=["loss is finite", "auc >= 0.52"],
        retention=[KeepLatest(5), KeepBest("auc")],
    )
    following = TriggerDagRunOperator(task_id="next", trigger_dag_id="flight_delay_dag")

    prepare >> checkpoint >> samples >> evaluate >> train >> commit >> following
