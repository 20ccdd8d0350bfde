"""DataCheckerOperator: what it decides, when it waits, and what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from trainflow.authoring.trigger import describe_trigger, make_trigger
from trainflow.checkpoints.chain import ChainKey
from trainflow.errors import (
    FailException,
    InputError,
    RescheduleException,
    SampleCheckFailed,
    SampleDamaged,
    SampleGap,
    SkipException,
)
from trainflow.operators import Checks, DataCheckerOperator, GapPolicy, SplitLimits
from trainflow.operators.chain.head import Head, head_to_xcom
from trainflow.operators.triggers.partition import PartitionTrigger
from trainflow.samples.splits.split_xcom import split_from_xcom


@pytest.fixture
def checker(lab: Any, dag: Any) -> Callable[..., Any]:
    """`checker(trained_days, **options)` → builds a DAG whose task "samples" goes on after so many days."""

    def make(trained_days: int = 0, **options: Any) -> Any:
        watermark = lab.samples.start + timedelta(days=trained_days) if trained_days else None
        chain = ChainKey("model")
        identity = "0" * 26 if trained_days else None
        head = Head(chain.pipeline, chain.stage, chain.branch, "checkpoints", identity, trained_days, watermark)
        options = {"samples": lab.samples, **options}
        return dag(lambda: DataCheckerOperator(checkpoint=head_to_xcom(head), **options))

    return make


def still_writing(lab: Any, day: int) -> None:
    lab.write_day(day, marker=False)


def touched(lab: Any, day: int) -> None:
    """The files of a day were written when the lab's clock said."""
    for path in lab.write_day(day).iterdir():
        os.utime(path, (lab.clock.now().timestamp(),) * 2)


def test_split_is_handed_over_inline(lab: Any, checker: Any) -> None:
    for day in range(3):
        lab.write_day(day)
    value = lab.run(checker(1), "samples")
    split = split_from_xcom(value)
    assert [partition.start.day for partition in split.partitions] == [2, 3]
    assert lab.ti.notes == ["2 partitions, 2013-01-02T00:00Z to 2013-01-04T00:00Z, 20 rows"]


def test_large_split_goes_by_reference_into_store_of_chain(
    lab: Any, checker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainflow.samples.splits.split_xcom.INLINE_BYTES", 10)
    lab.write_day(0)
    value = lab.run(checker(), "samples")
    assert value["uri"].startswith(str(lab.root / "checkpoints/model/main/main/splits/"))
    assert "split" not in value
    assert split_from_xcom(value).rows == 10
    # the same again after a kill: the same value
    assert lab.run(checker(), "samples") == value


@pytest.mark.parametrize("mode", ["backfill", "latest"])
def test_table_that_has_ended_ends_chain_in_both_modes(lab: Any, checker: Any, mode: str) -> None:
    with pytest.raises(
        SkipException, match=r"caught up at 2013-02-01T00:00Z: the end of the samples \(samples\.end\) is reached$"
    ):
        lab.run(checker(31, mode=mode), "samples")
    assert lab.xcoms["run-1", "samples", "caught_up"] is True


def test_latest_defers_until_next_partition_and_decides_anew(lab: Any, checker: Any) -> None:
    lab.write_day(0)
    build = checker(1, mode="latest", poke_interval=0.5, timeout=3600)
    deferred = lab.deferral(build, "samples")
    assert isinstance(deferred.trigger, PartitionTrigger)
    assert deferred.trigger.partition_start == lab.samples.start + timedelta(days=1)
    assert deferred.trigger.give_up_after is None
    assert deferred.trigger.poke_interval == 0.5
    assert deferred.timeout_seconds == 3600
    assert lab.ti.notes[-1].startswith("caught up, waits: nothing after 2013-01-02T00:00Z")

    # resumed too early (the trigger fired for another reason): waits again instead of failing or skipping
    again = lab.deferral(build, "samples", event="whatever")
    assert (deferred.trigger.pause_first, again.trigger.pause_first) == (False, True)
    lab.write_day(1)
    value = lab.run(build, "samples", event="whatever")
    assert value["rows"] == 10


def test_samples_backfill_of_nothing_fails_and_says_what_is_there(lab: Any, checker: Any) -> None:
    (lab.root / "data" / "day=20130101").mkdir(parents=True)
    with pytest.raises(FailException, match=r"data holds day=20130101, and nothing there is called as.*mode: latest"):
        lab.run(checker(), "samples")
    assert "data holds day=20130101" in lab.ti.notes[-1]


def test_samples_of_pipeline_file_that_are_not_there_are_told_with_their_line(lab: Any, checker: Any) -> None:
    built = checker()()
    built.get_task("samples").written_at = {"samples.path": "pipelines/clicks.yaml:7"}

    with pytest.raises(FailException, match=r"^pipelines/clicks\.yaml:7: nothing is there yet for "):
        lab.run(lambda: built, "samples")


def test_latest_waits_for_first_partition_and_says_what_is_there(lab: Any, checker: Any) -> None:
    (lab.root / "data" / "day=20130101").mkdir(parents=True)
    lab.deferral(checker(mode="latest"), "samples")
    assert lab.ti.notes[-1].startswith("caught up, waits: nothing is there yet for")
    assert "data holds day=20130101" in lab.ti.notes[-1]


def test_table_that_its_log_describes_fails_task_for_good(lab: Any, checker: Any) -> None:
    lab.write_day(0)
    (lab.root / "data" / "_delta_log").mkdir()
    with pytest.raises(FailException, match="a Delta table: data has _delta_log"):
        lab.run(checker(), "samples")


def test_file_that_is_damaged_is_waited_for_then_refused(lab: Any, checker: Any) -> None:
    folder = lab.write_day(0)
    [file] = folder.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    for path in folder.iterdir():
        os.utime(path, (lab.clock.now().timestamp(),) * 2)
    deferred = lab.deferral(checker(), "samples")
    assert deferred.trigger.unfinished is not None
    assert deferred.trigger.check_again_after == 600
    assert "is not completely written" in lab.ti.notes[-1]
    lab.clock.advance(timedelta(minutes=10))
    with pytest.raises(SampleDamaged, match="cannot be read as Parquet"):
        lab.run(checker(), "samples", event="time")
    assert stopped(lab) == ("check", "check 2013-01-01T00:00:00+00:00")


def test_backfill_waits_for_partition_that_is_being_written(lab: Any, checker: Any) -> None:
    still_writing(lab, 0)
    deferred = lab.deferral(checker(), "samples")
    assert lab.ti.notes[-1].startswith("waits: the partition 2013-01-01T00:00Z is not ready: it has no _SUCCESS")
    # it may be taken away again, so a backfill looks again some time
    assert deferred.trigger.give_up_after == 600


def test_gap_is_waited_for_then_skipped(lab: Any, checker: Any) -> None:
    policy = GapPolicy(wait_seconds=3600, then="skip")
    build = checker(samples=msgspec.structs.replace(lab.samples, gaps=policy))
    touched(lab, 1)
    deferred = lab.deferral(build, "samples")
    assert deferred.trigger.partition_start == lab.samples.start
    lab.clock.advance(timedelta(hours=2))
    value = lab.run(build, "samples", event="gap")
    assert value["holes"] == 1
    assert "stepping over 1 hole" in lab.ti.notes[-1]


def test_gap_fails_when_policy_says_so(lab: Any, checker: Any) -> None:
    touched(lab, 1)
    with pytest.raises(SampleGap, match="2013-01-01"):
        lab.run(checker(), "samples")
    assert stopped(lab) == ("gap", "gap 2013-01-01T00:00:00+00:00")


def stopped(lab: Any) -> tuple[str, str]:
    """What the notice says when the run fails of it."""
    told = lab.ti.xcom_pull("samples", key="stopped")
    return told["cause"], told["key"]


def test_check_that_refuses_fails_task(lab: Any, checker: Any) -> None:
    lab.write_day(0, rows=3)
    build = checker(samples=msgspec.structs.replace(lab.samples, checks=Checks(min_rows=5)))
    with pytest.raises(SampleCheckFailed, match="2013-01-01"):
        lab.run(build, "samples")
    assert stopped(lab) == ("check", "check 2013-01-01T00:00:00+00:00")


def test_trigger_travels_without_options(lab: Any, checker: Any) -> None:
    lab.write_day(0)
    samples = msgspec.structs.replace(lab.samples, checks=Checks(ranges={"y": (0.0, None)}))
    trigger = lab.deferral(checker(1, mode="latest", samples=samples), "samples").trigger
    assert trigger.samples == samples
    path, kwargs = describe_trigger(trigger)
    assert "storage_options" not in json.dumps(kwargs)
    assert describe_trigger(make_trigger(path, json.loads(json.dumps(kwargs)))) == (path, kwargs)


def test_samples_with_own_options_are_looked_at_by_task(lab: Any, checker: Any) -> None:
    samples = msgspec.structs.replace(lab.samples, storage_options={"secret": "hunter22"})
    with pytest.raises(RescheduleException) as caught:
        lab.run(checker(1, samples=samples, mode="latest"), "samples")
    assert caught.value.reschedule_at == timedelta(seconds=5)
    assert "hunter22" not in " ".join([*lab.ti.notes, str(caught.value), json.dumps(list(lab.xcoms.values()))])


def test_path_with_credentials_is_refused(lab: Any, checker: Any) -> None:
    samples = msgspec.structs.replace(lab.samples, path="s3://me:hunter22@bucket/{start:%Y-%m-%d}/")
    with pytest.raises(InputError, match="has credentials in it") as caught:
        checker(samples=samples)()
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"mode": "newest"}, "one of backfill, latest"), ({"samples": {"path": "x"}}, "not a Samples")],
)
def test_samples_wrong_arguments_are_refused_when_dag_is_made(checker: Any, options: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        checker(**options)()


def test_samples_wrong_head_is_refused(lab: Any, dag: Any) -> None:
    build = dag(lambda: DataCheckerOperator(checkpoint={"id": 3}, samples=lab.samples, limits=SplitLimits()))
    with pytest.raises(FailException, match="not what a CheckpointOperator hands over"):
        lab.run(build, "samples")
