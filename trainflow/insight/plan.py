"""What would be trained from the head on, run by run. Asks the rule that the runs ask, and changes nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from trainflow.errors import SampleError
from trainflow.insight.next_run import Outlook
from trainflow.samples.grid_change import GridChange, sentence_about
from trainflow.samples.next_split import CaughtUp, Seen, SplitFound, decide
from trainflow.samples.pace import Pace
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.split import Split
from trainflow.samples.split_content import Hole

Outcome = Literal["caught_up", "waiting", "more", "stopped"]


class PlannedRun(msgspec.Struct, frozen=True):
    """One run to come. `start` and `end` (exclusive) bound its split."""

    number: int
    start: datetime
    end: datetime
    partitions: int
    rows: int | None
    bytes: int
    holes: list[Hole]
    estimated_seconds: float | None


class Plan(msgspec.Struct, frozen=True):
    """`outcome` says what comes after the last of `runs`: nothing (`caught_up`), a wait, `more` runs than were asked
    for, or a failure (`stopped`); `reason` says it in a sentence. `estimated_seconds`: None without a history."""

    runs: list[PlannedRun]
    outcome: Outcome
    reason: str
    partitions: int
    rows: int | None
    bytes: int
    estimated_seconds: float | None


def plan(samples: Samples, limits: SplitLimits | None, ahead: Outlook, seen: Seen, *, most: int, pace: Pace) -> Plan:
    """The next `most` runs, as far as the samples are there now. Raises InputError for samples that cannot be."""
    runs: list[PlannedRun] = []
    watermark, columns = ahead.begins, ahead.columns
    if ahead.waits is not None:
        return _plan(runs, "waiting", ahead.waits)
    while len(runs) < most:
        try:
            answer = decide(samples, watermark, limits or SplitLimits(), seen, ahead.bounds, columns)
        except SampleError as error:
            return _plan(runs, "stopped", str(error))
        if not isinstance(answer, SplitFound):
            return _plan(runs, "caught_up" if isinstance(answer, CaughtUp) else "waiting", answer.reason)
        runs.append(_planned(len(runs) + 1, answer.split, pace))
        watermark, columns = answer.split.end, answer.split.columns
    return _plan(runs, "more", f"only the next {most} runs were looked at")


def refused(change: GridChange, name: str) -> Plan:
    """Of a chain whose samples are not those that it was trained on: no run until that is decided. `name` is what
    commands call the pipeline."""
    return _plan([], "stopped", sentence_about(change, name))


def _planned(number: int, split: Split, pace: Pace) -> PlannedRun:
    return PlannedRun(
        number=number,
        start=split.start,
        end=split.end,
        partitions=len(split.partitions),
        rows=split.rows,
        bytes=split.bytes,
        holes=list(split.holes),
        estimated_seconds=pace.estimate(len(split.partitions), split.rows),
    )


def _plan(runs: list[PlannedRun], outcome: Outcome, reason: str) -> Plan:
    rows = [run.rows for run in runs]
    seconds = [run.estimated_seconds for run in runs]
    return Plan(
        runs=runs,
        outcome=outcome,
        reason=reason,
        partitions=sum(run.partitions for run in runs),
        rows=None if None in rows else sum(each for each in rows if each is not None),
        bytes=sum(run.bytes for run in runs),
        estimated_seconds=None if None in seconds else sum(each for each in seconds if each is not None),
    )
