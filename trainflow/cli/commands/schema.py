"""`trainflow schema`: the JSON Schema of YAML pipelines."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("schema")(schema)


def schema(
    output: Path | None = typer.Option(
        None, "--output", "-o", metavar="FILE", help="Write it into this file.", dir_okay=False
    ),
) -> None:
    """Print the JSON Schema of YAML pipelines.

    Every key, its type, default and meaning, for editors and people.

    Editors with a YAML language server use it when a pipeline begins with
    '# yaml-language-server: $schema=../pipeline.schema.json'.
    """
    import json

    from trainflow.errors import InputError
    from trainflow.pipeline_spec.load import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from None
    typer.echo(f"wrote {output}")
