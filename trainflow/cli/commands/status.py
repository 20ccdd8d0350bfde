"""`trainflow status` and `why`: the engine, where each pipeline is, and in a sentence why nothing is training."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from trainflow.bootstrap import importing
from trainflow.cli.arguments import STAGE
from trainflow.cli.render.output import JSON_OPTION, only_one, print_json, print_rows, sparkline, text
from trainflow.errors import InputError
from trainflow.humanize import agreeing, counted, duration, number, percent
from trainflow.observability.standard_streams import drive
from trainflow.workspace.locate import open_selection

if TYPE_CHECKING:
    from trainflow.insight.status import CurrentRun, PipelineStatus, ProjectStatus


#: short enough for 80 columns; whatever needs a sentence stands below
_COLUMNS = {"dag_id": "PIPELINE", "head": "HEAD", "trained": "TRAINED UP TO", "behind": "BEHIND", "now": "NOW"}
_PROBLEM_CHARACTERS = 300
_WATCH_SECONDS = 2.0
#: the escape sequences that go to the upper left corner, and empty what is below
_CLEARED = "\x1b[H\x1b[2J"


def status(
    pipeline: str | None = typer.Argument(
        None, metavar="[PIPELINE]", help="A pipeline file, its name, or the id of a DAG. Default: all."
    ),
    as_json: bool = JSON_OPTION,
    watch: bool = typer.Option(False, "--watch", help="Show it again every two seconds, until Ctrl-C."),
) -> int:
    """Show the engine, and where each pipeline is.

    Its head, its lag, what runs and what failed last.

    JSON: {engine: {alive, pid, hostname, since, triggers, silent_seconds, problem}, undelivered,
    undelivered_reason, refused, refused_reason, pipelines: [{dag_id, path, pipeline, stage, branch, known,
    head_number, head_id, watermark, lag, lag_is_more, problem, paused, drained, missing_since, import_problem, run:
    {run_id, number, state, started_at, task_id, task_state, progress, note} or null, last_run: {run_id, number,
    state, ended_at, note} or null, last_failure: {run_id, task_id, at, problem} or null, undelivered, lag_seconds,
    never_catches_up, catches_up_in_seconds, holes, holes_arrived, republished, stopped, samples_changed, lost_end,
    waits, misnamed, metric, metric_trend, lag_trend}]}. silent_seconds: for how long the engine has written nothing
    to its database, where that is too long (null: it is not), and problem says why. lag: partitions that are ready
    beyond the head (null: not known); lag_is_more: at least so many. lag_seconds: from the watermark to the end of
    the newest ready partition; never_catches_up: samples arrive faster than they are trained on. holes: partitions
    stepped over and not trained since, holes_arrived: those of them that are there now. republished: starts of
    partitions that have other content now than was trained. refused: what MLflow does not take; it is not tried
    again. stopped: what gates have against the checkpoint that they refused (empty: the chain is not stopped).
    samples_changed: how the samples differ from what the chain was trained on, so that nothing is trained (null:
    they do not). lost_end: what was committed from here and the ledger knows nothing of. waits: why a stage has
    nothing to start from yet (null: it has, or it starts from no other stage). misnamed: what stopped it are
    nothing but names of metrics that do not exist. metric_trend: values of one metric of the newest checkpoints,
    oldest first; lag_trend: for how many seconds what each was trained on had ended when it was committed.
    """
    with importing():
        from trainflow.clock import SystemClock
        from trainflow.concurrent_map import usable_processors
        from trainflow.insight import status as insight

    if watch and as_json:
        raise InputError("--watch is for people: leave out --json, or ask again and again")
    with open_selection(pipeline) as selection:
        found = insight.status(selection, SystemClock().now(), processes=usable_processors())
        while watch:
            drive(_CLEARED)
            _show(found)
            time.sleep(_WATCH_SECONDS)
            found = insight.status(selection, SystemClock().now(), processes=usable_processors())
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 0


def _show(found: ProjectStatus) -> None:
    from trainflow.samples.partitions import label

    engine = found.engine
    if engine.alive:
        where = f" on {engine.hostname}" if engine.hostname else ""
        since = f", since {text(engine.since)}" if engine.since else ""
        typer.echo(f"engine: alive (pid {engine.pid}{where}{since})")
        if engine.problem:
            typer.secho(f"engine: {engine.problem}", fg=typer.colors.YELLOW)
    else:
        typer.echo("engine: none is alive")
    if found.undelivered:
        waits = f"{counted(found.undelivered, 'delivery')} {agreeing(found.undelivered, 'waits', 'wait')}"
        typer.echo(f"MLflow: {waits}{f': {found.undelivered_reason}' if found.undelivered_reason else ''}")
    if found.refused:
        typer.echo(
            f"MLflow: {counted(found.refused, 'delivery')} refused: {found.refused_reason}; once that is mended, "
            "'trainflow mlflow --redeliver' tries again"
        )
    rows = [
        {
            "dag_id": line.dag_id,
            "head": line.head_number or "none",
            "trained": label(line.watermark) if line.watermark else "",
            "behind": _behind(line),
            "now": _now(line, alive=engine.alive),
        }
        for line in found.pipelines
    ]
    print_rows(rows, _COLUMNS, empty="this project has no pipelines yet")
    for line in found.pipelines:
        trend = _trend(line) if sys.stdout.isatty() else ""
        for remark in [*_remarks(line), *([trend] if trend else [])]:
            typer.echo(f"{line.dag_id}: {remark}")


def _trend(line: PipelineStatus) -> str:
    """Metric of the newest checkpoints, and how old their samples were when each was committed, as bars."""
    parts = []
    if metric := sparkline(line.metric_trend):
        parts.append(f"{line.metric} {metric} {number(line.metric_trend[-1])}")
    if lag := sparkline(line.lag_trend):
        parts.append(f"age at commit {lag} {duration(line.lag_trend[-1])}")
    return "  ".join(parts)


def _behind(line: PipelineStatus) -> str:
    """Partitions that are ready beyond the head, and how much time they cover."""
    if line.lag is None:
        return "?" if line.problem else ""
    if not line.lag:
        return "0" if line.head_number else ""
    return f"{line.lag:,}{'+' if line.lag_is_more else ''} ({duration(line.lag_seconds)})"


def _now(line: PipelineStatus, *, alive: bool) -> str:
    """State of the chain in a word or two."""
    run, last = line.run, line.last_run
    if line.import_problem:
        return "broken file"
    if line.missing_since:
        return "no file defines it"
    if run is not None and not alive:
        return f"run {run.number}: no engine"
    if run is not None:
        paused = "paused, " if line.paused else "drained, " if line.drained else ""
        return f"{paused}run {run.number}{_doing(run)}"
    if line.paused or line.drained:
        return "paused" if line.paused else "drained"
    if line.stopped:
        return "stopped by a gate"
    if last is None:
        return "never started here"
    return f"run {last.number} failed" if last.state == "failed" else "idle"


def _doing(run: CurrentRun) -> str:
    match run.task_state:
        case None:
            return f" {run.state}"
        case "running":
            return f": {run.task_id} {_progress(run.progress)}".rstrip()
        case "deferred" | "up_for_reschedule":
            return " waits"
        case "up_for_retry":
            return f": {run.task_id} is retried"
    return f": {run.task_id} {run.task_state}"


def _remarks(line: PipelineStatus) -> list[str]:
    """What a person should know besides, most important first, a sentence each."""
    run, failure = line.run, line.last_failure
    found = [f"its file cannot be read: {_cut(line.import_problem)}"] if line.import_problem else []
    if line.problem:
        found.append(f"chain or samples cannot be read: {_cut(line.problem)}")
    if line.lost_end:
        found.append(line.lost_end)
    if line.samples_changed:
        found.append(_cut(line.samples_changed))
    if line.stopped:
        found.append(f"a gate stopped it: {_cut('; '.join(line.stopped))}")
    if failure is not None and _is_news(failure.run_id, line):
        found.append(f"{failure.task_id} failed at {text(failure.at)}: {_cut(failure.problem or '')}")
    if run is not None and run.note:
        found.append(_cut(run.note))
    if run is None and line.waits:
        found.append(line.waits)
    if line.never_catches_up:
        found.append("it never catches up at this rate")
    if line.republished:
        found.append(f"{counted(len(line.republished), 'partition')} published again after training")
    if line.holes:
        arrived = f", {line.holes_arrived:,} arrived" if line.holes_arrived else ""
        found.append(f"{counted(line.holes, 'hole')}{arrived}")
    return found


def _is_news(run_id: str, line: PipelineStatus) -> bool:
    """A failure that later runs have got over is history."""
    newest = line.run or line.last_run
    return newest is None or newest.run_id == run_id or (line.last_run is not None and line.last_run.state == "failed")


def _progress(progress: dict[str, Any] | None) -> str:
    if not progress or progress.get("done") is None:
        return ""
    done, total, unit = progress["done"], progress.get("total"), progress.get("unit") or ""
    return percent(done, total) if total else f"{done:,.0f} {unit}".rstrip()


def _cut(sentence: str) -> str:
    line = " ".join(sentence.split())
    return line if len(line) <= _PROBLEM_CHARACTERS else f"{line[: _PROBLEM_CHARACTERS - 1]}…"


def why(
    pipeline: str | None = typer.Argument(
        None, metavar="[PIPELINE]", help="A pipeline file, its name, or the id of a DAG. Default: all."
    ),
    stage: str | None = STAGE,
    branch: str | None = typer.Option(None, "--branch", metavar="NAME", help="Only this branch; default: all."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Say in one sentence why nothing is training, or what is.

    JSON: {answers: [{dag_id, path, kind, sentence}]}; of one answer the keys also stand at the top. kind: training,
    working, no_engine, no_triggerer, paused, drained, broken_file, missing_file, waiting, retrying, no_slot, starting,
    queued, gate, failed, caught_up, never_started, ended.
    """
    with importing():
        from trainflow.clock import SystemClock
        from trainflow.concurrent_map import usable_processors
        from trainflow.insight import why as insight

    with open_selection(pipeline) as selection:
        now, processes = SystemClock().now(), usable_processors()
        found = insight.why(selection, now, stage=stage, branch=branch, processes=processes)
    if as_json:
        print_json(only_one(found, "answers"))
    elif not found.answers:
        typer.echo("this project has no pipelines: put one into pipelines/, or try 'trainflow init DIRECTORY'")
    for answer in [] if as_json else found.answers:
        typer.echo(answer.sentence)
    return 0
