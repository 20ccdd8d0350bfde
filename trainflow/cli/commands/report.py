"""`trainflow report`: a pipeline's chains in one file."""

from __future__ import annotations

from pathlib import Path

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE


def report(
    pipeline: str = PIPELINE,
    output: Path = typer.Option(..., "-o", "--output", metavar="FILE", help="HTML file to write."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
) -> int:
    """Write a report: one HTML file.

    The calendar of each chain, its metrics, holes, decisions, checkpoints, and what its head learnt from. All of it is
    in the file: to mail, or to keep with a model. A file that is there is replaced. Exit codes: 0, 2 wrong input.
    """
    from trainflow.clock import SystemClock
    from trainflow.pages.report import report as written
    from trainflow.workspace.pipelines import open_pipeline

    with open_pipeline(pipeline) as file:
        text = written(file, stage, branch, SystemClock().now())
    output.write_text(text, encoding="utf-8")
    typer.echo(f"report: {output} ({len(text.encode()) / 1024:,.0f} KiB)")
    return 0
