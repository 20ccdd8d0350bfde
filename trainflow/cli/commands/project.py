"""`trainflow init`, `schema` and `config`: lay out a project, the keys of its pipelines, its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from trainflow.cli.render.output import EXIT_WRONG_INPUT, JSON_OPTION, print_json, print_rows
from trainflow.workspace.workspace import find_project


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


config = typer.Typer(name="config", help="Settings in force, and where from.", no_args_is_help=True)

_SETTING_COLUMNS = {"name": "SETTING", "shown": "VALUE", "unit": "UNIT", "source": "FROM", "meaning": "MEANING"}


@config.command("list")
def list_settings(
    section: str | None = typer.Argument(None, metavar="[SECTION]", help="Only this section."),
    changed: bool = typer.Option(False, "--changed", help="Only what is not the default."),
    as_json: bool = JSON_OPTION,
) -> None:
    """List the settings: value, unit, source, meaning.

    Secrets are shown as ***.

    A setting is taken from its environment variable (TRAINFLOW__SECTION__KEY), otherwise from configs/trainflow.toml,
    otherwise it has its default.

    JSON: a list of {name, section, key, value, default, unit, source, meaning}; source is "default", the file, or the
    name of the variable.
    """
    import msgspec

    from trainflow.insight import settings as insight

    found = insight.list_settings(find_project(), section, changed=changed)
    if as_json:
        print_json(found)
        return
    rows = [msgspec.structs.asdict(each) | {"shown": _text(each.value)} for each in found]
    print_rows(rows, _SETTING_COLUMNS, empty="every setting has its default")


@config.command("get")
def get(
    name: str = typer.Argument(metavar="SECTION.KEY", help="A setting, e.g. engine.poll_seconds."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Print the value of one setting.

    Alone on a line.

    JSON: the keys of `config list`.
    """
    from trainflow.insight import settings as insight

    found = insight.find_setting(find_project(), name)
    if as_json:
        print_json(found)
    else:
        typer.echo(_text(found.value))


@config.command("lint")
def lint(as_json: bool = JSON_OPTION) -> int:
    """Say everything that is wrong with the settings.

    With the settings file and the TRAINFLOW__… variables. Exit code 2 if anything is.

    JSON: {ok, file, problems}.
    """
    from trainflow.insight import settings as insight

    found = insight.check_settings(find_project())
    if as_json:
        print_json(found)
    elif found.ok:
        typer.echo("every setting is fine")
    for problem in [] if as_json else found.problems:
        typer.echo(problem)
    return 0 if found.ok else EXIT_WRONG_INPUT


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
