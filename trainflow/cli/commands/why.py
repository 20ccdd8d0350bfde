"""`trainflow why`: one sentence why nothing is training right now, or what is."""

from __future__ import annotations

import typer

from trainflow.cli.arguments import STAGE
from trainflow.cli.render.output import JSON_OPTION, only_one, print_json
from trainflow.workspace.locate import open_selection


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(why)


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
    working, no_engine, no_triggerer, paused, broken_file, missing_file, waiting, retrying, no_slot, starting, queued,
    gate, failed, caught_up, never_started, ended.
    """
    from trainflow.clock import SystemClock
    from trainflow.insight import dag_selection

    with open_selection(pipeline) as selection:
        found = dag_selection.why(selection, SystemClock().now(), stage=stage, branch=branch)
    if as_json:
        print_json(only_one(found, found.answers))
    elif not found.answers:
        typer.echo("this project has no pipelines: put one into pipelines/, or try 'trainflow init'")
    for answer in [] if as_json else found.answers:
        typer.echo(answer.sentence)
    return 0
