"""`trainflow why`: one sentence why nothing is training right now, or what is."""

from __future__ import annotations

import typer

from trainflow.cli.arguments import STAGE
from trainflow.cli.render.output import JSON_OPTION, print_json


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
    from trainflow.insight.explain import explain
    from trainflow.insight.overview import look, of_chains, standing_of

    now = SystemClock().now()
    found = look(pipeline, now)
    answers = []
    for situation in of_chains(found, pipeline, stage, branch):
        answer = explain(situation, standing_of(situation, found, now), now)
        answers.append(
            {
                "dag_id": situation.dag_id,
                "path": situation.path,
                "kind": answer.kind.value,
                "sentence": f"{situation.dag_id}: {answer.sentence}",
            }
        )
    if as_json:
        print_json({**(answers[0] if len(answers) == 1 else {}), "answers": answers})
    elif not answers:
        typer.echo("this project has no pipelines: put one into pipelines/, or try 'trainflow init'")
    for answer_line in [] if as_json else answers:
        typer.echo(answer_line["sentence"])
    return 0
