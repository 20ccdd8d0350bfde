"""`trainflow dags`: list, show, pause, unpause, errors, test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import DAG_ARGUMENT
from trainflow.cli.exit_codes import EXIT_FAILED, EXIT_WRONG_INPUT
from trainflow.cli.render.dag_tree import tree
from trainflow.cli.render.output import JSON_OPTION, print_facts
from trainflow.pluralize import counted
from trainflow.workspace.names import dag_named, is_file, opened_for

if TYPE_CHECKING:
    from trainflow.serialization.document import DagDocument

dags = typer.Typer(help="DAGs: list, show, pause, test a file.", no_args_is_help=True)

_COLUMNS = {
    "dag_id": "DAG",
    "path": "FILE",
    "version": "VERSION",
    "tasks": "TASKS",
    "state": "",
    "runs": "RUNS",
    "description": "DESCRIPTION",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(dags, name="dags")


@dags.command("list")
def list_dags(as_json: bool = JSON_OPTION) -> None:
    """List the DAGs that an engine has read.

    And on which version they are.

    JSON: [{dag_id, path, version, is_paused, missing_since, parsed_at, description, tags, max_active_runs, tasks,
    chain ("pipeline/stage/branch", or null), runs (state: count)}]. `missing_since`: no file defines it any more.
    """
    from trainflow.cli.render.output import print_rows
    from trainflow.metadata import dag_queries, run_queries
    from trainflow.serialization.document import decode
    from trainflow.workspace.workspace import opened

    with opened() as here, here.database.reading() as connection:
        counts = run_queries.counts(connection)
        rows = [_row_facts(row, decode(row.document), counts) for row in dag_queries.everything(connection)]
        broken = len(dag_queries.problems(connection))
    empty = "no DAG has been read yet: 'trainflow start FILE' and 'trainflow standalone' read them"
    print_rows(rows if as_json else [_shown(row) for row in rows], _COLUMNS, as_json=as_json, empty=empty)
    if broken:
        typer.echo(f"{counted(broken, 'pipeline file')} cannot be read: see 'trainflow dags errors'", err=True)


@dags.command("show")
def show_dag(
    dag: str = DAG_ARGUMENT,
    overrides: list[str] = typer.Option([], "--set", metavar="NAME=VALUE", help="With a file: override a value of it."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Show a DAG: its tasks as a tree, its params, its chain.

    The id of a DAG shows what the engine has read; a pipeline file is read anew and nothing is kept.

    JSON: {dag_id, path, version, digest, is_paused, missing_since, parsed_at, document}; `document` is what the
    scheduler knows: {tasks: [{task_id, operator, upstream, trigger_rule, …}], params, chain, …}. What only the database
    knows is null for a file.
    """
    from trainflow.cli.render.output import print_json

    facts = _of_file(dag, overrides) if is_file(dag) else [_of_database(dag)]
    if as_json:
        print_json(facts[0] if len(facts) == 1 else facts)
        return
    for one in facts:
        _print_dag(one)


@dags.command("pause")
def pause(dag: str = DAG_ARGUMENT) -> None:
    """Start no run and no task of a DAG any more.

    What runs at this moment goes on to its end.
    """
    _set_paused(dag, True)


@dags.command("unpause")
def unpause(dag: str = DAG_ARGUMENT) -> None:
    """Let runs and tasks of a DAG start again."""
    _set_paused(dag, False)


@dags.command("errors")
def errors(
    with_traceback: bool = typer.Option(False, "--traceback", help="Print the tracebacks as well."),
    as_json: bool = JSON_OPTION,
) -> int:
    """List pipeline files that cannot be read, and why.

    As an engine found them. Exit code 1 when there are any.

    JSON: [{path, line, column, message, traceback, at}].
    """
    from trainflow.cli.render.output import print_json, text
    from trainflow.metadata import dag_queries
    from trainflow.workspace.workspace import opened

    keys = ("path", "line", "column", "message", "traceback", "at")
    with opened() as here, here.database.reading() as connection:
        rows = [{key: getattr(row, key) for key in keys} for row in dag_queries.problems(connection)]
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo("every pipeline file that was read is fine")
    for row in [] if as_json else rows:
        typer.echo(f"{row['message']}  (since {text(row['at'])})")
        if with_traceback and row["traceback"]:
            typer.echo(row["traceback"])
    return EXIT_FAILED if rows else 0


@dags.command("test")
def read_now(
    file: str = typer.Argument(metavar="FILE", help="A pipeline file, or the name of one in pipelines/."),
    overrides: list[str] = typer.Option([], "--set", metavar="NAME=VALUE", help="Override a value of the pipeline."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Read a pipeline file and say what it defines.

    Or what is wrong with it. In a process of its own; keeps nothing.

    Exit code 2 when it cannot be read.

    JSON: {path, problem, dags (documents as in `dags show`)}.
    """
    from trainflow.cli.render.output import print_json
    from trainflow.errors import InputError

    try:
        facts = _of_file(file, overrides)
    except InputError as error:
        if not as_json:
            raise
        print_json({"path": file, "problem": str(error), "dags": []})
        return EXIT_WRONG_INPUT
    if as_json:
        print_json({"path": facts[0]["path"], "problem": None, "dags": [one["document"] for one in facts]})
        return 0
    for one in facts:
        _print_dag(one)
    typer.echo(f"{facts[0]['path']} is fine")
    return 0


# -- facts ---------------------------------------------------------------------------------------------------------


def _row_facts(row: Any, document: DagDocument, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    chain = document.chain
    return {
        "dag_id": row.dag_id,
        "path": row.path,
        "version": row.version_number,
        "is_paused": row.is_paused,
        "missing_since": row.missing_since,
        "parsed_at": row.parsed_at,
        "description": document.description,
        "tags": document.tags,
        "max_active_runs": document.max_active_runs,
        "tasks": len(document.tasks),
        "chain": f"{chain.pipeline}/{chain.stage}/{chain.branch}" if chain else None,
        "runs": counts.get(row.dag_id, {}),
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    state = "gone from its file" if row["missing_since"] else "paused" if row["is_paused"] else ""
    runs = ", ".join(f"{count} {state}" for state, count in sorted(row["runs"].items()))
    return row | {"state": state, "runs": runs}


def _of_database(dag: str) -> dict[str, Any]:
    from trainflow.metadata import dag_queries
    from trainflow.metadata.dag_queries import Versions

    with opened_for(dag) as here, here.database.reading() as connection:
        row = dag_named(connection, here.project, dag)
        version = dag_queries.version(connection, row.version_id)
        document, _ = Versions().get(connection, row.version_id)
    return {
        "dag_id": row.dag_id,
        "path": row.path,
        "version": version.number,
        "digest": version.digest,
        "is_paused": row.is_paused,
        "missing_since": row.missing_since,
        "parsed_at": row.parsed_at,
        "document": _document_facts(document),
    }


def _of_file(name: str, overrides: list[str]) -> list[dict[str, Any]]:
    """What a file defines now. Raises InputError."""
    from trainflow.cli.arguments import parse_overrides
    from trainflow.serialization.document import decode, version_of
    from trainflow.settings.load import load_settings
    from trainflow.settings.project import project_of
    from trainflow.workspace.file_reading import parse
    from trainflow.workspace.names import file_named

    path = file_named(name)
    project = project_of(path)
    result = parse(project, load_settings(project), path, parse_overrides(overrides))
    unknown = {"version": None, "is_paused": None, "missing_since": None, "parsed_at": None}
    return [
        {
            "dag_id": parsed.dag_id,
            "path": project.relative(path),
            **unknown,
            "digest": version_of(bytes(parsed.document)),
            "document": _document_facts(decode(bytes(parsed.document))),
        }
        for parsed in result.dags
    ]


def _document_facts(document: DagDocument) -> dict[str, Any]:
    """The document in full, without secrets."""
    import msgspec

    from trainflow.observability.redaction import redact

    facts = msgspec.to_builtins(document)
    for task in facts["tasks"]:
        task.setdefault("upstream", [])
    facts.setdefault("params", {})
    facts.setdefault("chain", None)
    shown: dict[str, Any] = redact(facts)
    return shown


def _set_paused(dag: str, paused: bool) -> None:
    from trainflow.executors.execution_socket import nudge
    from trainflow.metadata import dag_queries

    with opened_for(dag) as here:
        with here.database.transaction() as connection:
            row = dag_named(connection, here.project, dag)
            dag_queries.pause(connection, row.dag_id, paused)
        nudge(here.project.home.socket_path)
    state = "paused" if paused else "not paused"
    typer.echo(f"{row.dag_id} was {state} already" if row.is_paused == paused else f"{row.dag_id} is {state} now")


# -- for people ----------------------------------------------------------------------------------------------------


def _print_dag(facts: dict[str, Any]) -> None:
    from trainflow.cli.render.output import text

    document = facts["document"]
    chain = document["chain"]
    lines = {
        "DAG": facts["dag_id"],
        "description": document.get("description") or "",
        "file": facts["path"],
        "version": f"{facts['version'] or 'as the file is now'} ({facts['digest'][:19]}…)",
        "state": "paused" if facts["is_paused"] else "",
        "missing": f"its file does not define it any more, since {text(facts['missing_since'])}"
        if facts["missing_since"]
        else "",
        "tags": ", ".join(document.get("tags", [])),
        "chain": f"{chain['pipeline']}/{chain.get('stage', 'main')}/{chain.get('branch', 'main')}" if chain else "",
        "samples": (chain.get("samples") or {}).get("path", "") if chain else "",
        "limits": _limits(document),
    }
    print_facts(lines)
    typer.echo("")
    for line in _doc(document):
        typer.echo(line)
    for line in tree(document["tasks"]):
        typer.echo(line)
    for task in document["tasks"]:
        for line in _doc(task, task["task_id"]):
            typer.echo(line)
    if document["params"]:
        typer.echo("\nparams")
    for name, schema in document["params"].items():
        typer.echo(f"  {_param(name, schema)}")
    typer.echo("")


def _doc(written: dict[str, Any], of: str = "") -> list[str]:
    """What its author wrote about it (`doc_md`)."""
    import inspect
    from textwrap import indent

    if not written.get("doc"):
        return []
    text = inspect.cleandoc(written["doc"])
    return [f"\n{of}", indent(text, "  ")] if of else [text, ""]


def _limits(document: dict[str, Any]) -> str:
    names = ("max_active_runs", "max_active_tasks", "dagrun_timeout_seconds")
    return ", ".join(f"{name} {document[name]}" for name in names if document.get(name) is not None)


def _param(name: str, schema: dict[str, Any]) -> str:
    value = f" = {schema['default']!r}" if "default" in schema else " (has to be given)"
    shown_elsewhere = ("default", "description", "title")
    rest = ", ".join(f"{key} {item!r}" for key, item in schema.items() if key not in shown_elsewhere)
    about = schema.get("description") or schema.get("title") or ""
    return f"{name}{value}" + (f"  [{rest}]" if rest else "") + (f"  {about}" if about else "")
