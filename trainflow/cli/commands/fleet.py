"""`trainflow fleet`: who is alive and what waits; drain, undrain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows
from trainflow.humanize import counted, duration
from trainflow.workspace.workspace import open_workspace

if TYPE_CHECKING:
    from trainflow.actions.fleet import DrainKind
    from trainflow.insight.fleet import Fleet

fleet = typer.Typer(name="fleet", invoke_without_command=True)

_KIND = typer.Argument(metavar="worker|queue|dag", help="What it is.")
_NAME = typer.Argument(metavar="NAME", help="Of a worker its name or its host; an engine is named by its host.")
_PARTS = {"kind": "PART", "hostname": "HOST", "pid": "PID", "version": "VERSION", "slots": "SLOTS", "seen": "SEEN"}
_WORKERS = {
    "name": "WORKER",
    "hostname": "HOST",
    "pid": "PID",
    "version": "VERSION",
    "executor": "EXECUTOR",
    "queues": "QUEUES",
    "slots": "SLOTS",
    "seen": "SEEN",
    "drained": "",
}
_EXECUTORS = {"name": "EXECUTOR", "type": "TYPE", "slots": "SLOTS"}
#: parts that may run attempts of their own
_WITH_SLOTS = ("engine", "scheduler")
_QUEUES = {
    "queue": "QUEUE",
    "executor": "EXECUTOR",
    "scheduled": "WAITING",
    "queued": "HANDED OVER",
    "running": "RUNNING",
    "workers": "WORKERS",
    "drained": "",
}


@fleet.callback()
def show(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """Show who is alive over this database, and what waits.

    Schedulers, triggerers, DAG processors, API servers and workers with their versions and slots, executors whose slots
    all schedulers share, queues with what waits in them, the task that has waited longest and why, and what is drained.

    SLOTS of a scheduler are those of its own local executor ('-': it has none, all it hands over goes to the executors
    below).

    JSON: {parts: [{kind, hostname, pid, version, started_at, heartbeat_at, slots, in_use, drained}], workers: [{name,
    hostname, pid, version, executor, queues, slots, in_use, started_at, heartbeat_at, drained}], executors: [{name,
    type, slots, queued, running, problem}], queues: [{queue, executor, scheduled, queued, running, workers, drained}],
    oldest_waiting: {dag_id, run_id, task_id, since, seconds, why} or null, drained: [{kind, name, since, note,
    running}]}. `drained` of a part, worker or queue is a sentence: why it takes nothing new (null: it does). `workers`
    of a queue null: none needs to listen on it.
    """
    if context.invoked_subcommand is not None:
        return
    from trainflow.clock import SystemClock
    from trainflow.insight.fleet import fleet as insight

    now = SystemClock().now()
    with open_workspace() as workspace:
        found = insight(workspace, now)
    if as_json:
        print_json(found)
    else:
        _print(found, SystemClock().now())


def _print(found: Fleet, now: Any) -> None:
    from trainflow.settings.executors import LOCAL

    def row(each: Any) -> dict[str, Any]:
        names = each.__struct_fields__
        shown = {name: getattr(each, name) for name in names} | {"drained": "drained" if each.drained else ""}
        if "slots" in names:
            none = "-" if shown.get("kind") in _WITH_SLOTS else ""
            shown["slots"] = none if each.slots is None else f"{each.in_use} of {each.slots}"
            shown["seen"] = f"{duration(max((now - each.heartbeat_at).total_seconds(), 0.0))} ago"
            shown["pid"] = str(each.pid)
        if "queues" in names:
            shown["queues"] = ", ".join(each.queues)
        return {name: "" if value is None else value for name, value in shown.items()}

    print_rows([row(each) for each in found.parts], {**_PARTS, "drained": ""}, empty="no part is alive")
    if found.workers:
        print_rows([row(each) for each in found.workers], _WORKERS, empty="")
    shared = [each for each in found.executors if each.type != LOCAL]
    if shared:
        used = [
            {"name": each.name, "type": each.type, "slots": f"{each.queued + each.running} of {each.slots}"}
            for each in shared
        ]
        print_rows(used, _EXECUTORS, empty="")
    if found.queues:
        print_rows([row(each) for each in found.queues], _QUEUES, empty="")
    for executor in found.executors:
        if executor.problem:
            typer.echo(f"executor '{executor.name}' takes nothing: {executor.problem}")
    for each in found.drained:
        why = f" ({each.note})" if each.note else ""
        left = f"{counted(each.running, 'attempt')} still to finish" if each.running else "nothing runs any more"
        typer.echo(f"{each.kind} '{each.name}' is drained{why}: {left}")
    oldest = found.oldest_waiting
    if oldest is not None:
        task = f"{oldest.dag_id} {oldest.run_id} {oldest.task_id}"
        typer.echo(f"waits longest: {task}, {duration(oldest.seconds)}: {oldest.why}")


@fleet.command("drain")
def drain(
    kind: str = _KIND,
    name: str = _NAME,
    note: str | None = typer.Option(None, "--note", metavar="TEXT", help="Why: it is shown where something waits."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Let a worker, queue or DAG finish and take nothing new.

    It stays so when everything is started anew, until 'trainflow fleet undrain'. A worker is named by --name or by its
    host, an engine's own slots by its host. What was handed over and not begun goes back, and waits.

    JSON: {kind, name, drained, note, changed}.
    """
    from trainflow.actions import fleet as actions
    from trainflow.clock import SystemClock

    with open_workspace() as workspace:
        done = actions.drain(workspace, _kind(kind), name, SystemClock().now(), note=note)
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{kind} '{name}' takes nothing new{'' if done.changed else ' (it was drained before)'}")


@fleet.command("undrain")
def undrain(kind: str = _KIND, name: str = _NAME, as_json: bool = JSON_OPTION) -> None:
    """Let a worker, a queue or a DAG take what comes again.

    JSON: {kind, name, drained, note, changed}.
    """
    from trainflow.actions import fleet as actions

    with open_workspace() as workspace:
        done = actions.undrain(workspace, _kind(kind), name)
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{kind} '{name}' takes what comes")


def _kind(said: str) -> DrainKind:
    from trainflow.actions.fleet import DrainKind
    from trainflow.errors import InputError
    from trainflow.identifiers import did_you_mean

    kinds = [each.value for each in DrainKind]
    if said not in kinds:
        raise InputError(f"'{said}' cannot be drained: a worker, a queue or a dag can{did_you_mean(said, kinds)}")
    return DrainKind(said)
