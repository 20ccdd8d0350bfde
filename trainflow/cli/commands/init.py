"""`trainflow init`: lay out a project."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    directory: Path = typer.Argument(metavar="DIR", help="A new or empty folder; '.' for this one."),
    name: str | None = typer.Option(
        None, "--name", metavar="NAME", help="Name of the project; default: that of the folder."
    ),
) -> None:
    """Lay out a project that runs as it is.

    A pipeline, a training function, settings, a test. Overwrites nothing.
    """
    from trainflow.scaffold.lay_out import lay_out

    chosen = name or directory.resolve().name.replace(" ", "_")
    for file in lay_out(directory, chosen):
        typer.echo(f"  {file}")
    inside = "" if directory.resolve() == Path.cwd() else f"cd {directory} && "
    typer.echo(f"\nproject {chosen} is there. Train its example:\n\n  {inside}trainflow start pipelines/example.yaml")
