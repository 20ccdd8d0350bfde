"""`trainflow dags`: list, show, pause, unpause, errors, test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import DAG_ARGUMENT, parse_overrides
from trainflow.cli.render.output import (
    EXIT_FAILED,
    EXIT_WRONG_INPUT,
    JSON_OPTION,
    print_facts,
    print_json,
    print_rows,
    text,
)
from trainflow.errors import InputError
from trainflow.humanize import agreeing, counted, duration
from trainflow.workspace.names import file_named, is_file, workspace_for
from trainflow.workspace.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainflow.insight.runs.dags import DagDetail, DagSummary, ImportProblem


dags = typer.Typer(name="dags", help="DAGs: list, show, pause, test a file.", no_args_is_help=True)

_COLUMNS = {
    "dag_id": "DAG",
    "path": "FILE",
    "version": "VERSION",
    "tasks": "TASKS",
    "state": "",
    "runs": "RUNS",
    "description": "DESCRIPTION",
}


@dags.command("list")
def list_dags(as_json: bool = JSON_OPTION) -> None:
    """List the DAGs that an engine has read.

    And on which version they are.

    JSON: [{dag_id, path, version, is_paused, missing_since, parsed_at, description, tags, max_active_runs, tasks,
    chain ("pipeline/stage/branch", or null), runs (state: count)}]. `missing_since`: no file defines it any more.
    """
    from trainflow.insight.runs import dags as insight

    with open_workspace() as workspace:
        found = insight.list_dags(workspace)
    if as_json:
        print_json(found.dags)
    else:
        empty = "no DAG has been read yet: 'trainflow start FILE' and 'trainflow standalone' read them"
        spare = ("version", "tasks", "description")
        print_rows([_row(each) for each in found.dags], _COLUMNS, empty=empty, spare=spare)
    for line in _broken(found.broken):
        typer.echo(line, err=True)


def _broken(problems: list[ImportProblem]) -> Iterator[str]:
    """How many files cannot be read, and how many could not when they were read last."""
    still = [each for each in problems if not each.is_changed]
    changed = [each for each in problems if each.is_changed]
    if still:
        yield f"{counted(len(still), 'pipeline file')} cannot be read: see 'trainflow dags errors'"
    if changed:
        when = f"{max(each.at for each in changed):%H:%M} UTC"
        have = agreeing(len(changed), "the file has", "the files have")
        yield (
            f"{counted(len(changed), 'pipeline file')} could not be read: recorded at {when}, and {have} changed "
            "since: 'trainflow dags test FILE' reads it now"
        )


def _row(dag: DagSummary) -> dict[str, Any]:
    import msgspec

    state = "no file defines it" if dag.missing_since else "paused" if dag.is_paused else ""
    runs = ", ".join(f"{count} {state}" for state, count in sorted(dag.runs.items()))
    return msgspec.structs.asdict(dag) | {"state": state, "runs": runs}


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
    from trainflow.insight.runs.dags import dag_detail

    if is_file(dag):
        found = _of_file(dag, overrides)
    else:
        with open_workspace() as workspace:
            found = [dag_detail(workspace, dag)]
    if as_json:
        print_json(found[0] if len(found) == 1 else found)
    for one in [] if as_json else found:
        _print_dag(one)


@dags.command("pause")
def pause(dag: str = DAG_ARGUMENT) -> None:
    """Start no run and no task of a DAG any more.

    What runs at this moment goes on to its end.
    """
    _set_paused(dag, paused=True)


@dags.command("unpause")
def unpause(dag: str = DAG_ARGUMENT) -> None:
    """Let runs and tasks of a DAG start again."""
    _set_paused(dag, paused=False)


def _set_paused(dag: str, *, paused: bool) -> None:
    from trainflow.actions import dags as actions

    with workspace_for(dag) as workspace:
        done = actions.set_paused(workspace, dag, paused=paused)
    state = "paused" if paused else "not paused"
    typer.echo(f"{done.dag_id} is {state} now" if done.changed else f"{done.dag_id} was {state} already")


@dags.command("errors")
def errors(
    with_traceback: bool = typer.Option(False, "--traceback", help="Print the tracebacks as well."),
    as_json: bool = JSON_OPTION,
) -> int:
    """List pipeline files that cannot be read, and why.

    As an engine found them. Exit code 1 when there are any.

    JSON: [{path, line, column, message, traceback, at, is_changed}]. `is_changed`: the file has changed since `at`.
    """
    from trainflow.insight.runs.dags import import_problems

    with open_workspace() as workspace:
        found = import_problems(workspace)
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("every pipeline file that was read is fine")
    for each in [] if as_json else found:
        typer.echo(f"{each.said}  (since {text(each.at)})")
        if with_traceback and each.traceback:
            typer.echo(each.traceback)
    return EXIT_FAILED if found else 0


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
    from trainflow.insight.runs.dags import FileCheck

    try:
        found = _of_file(file, overrides)
    except InputError as error:
        if not as_json:
            raise
        print_json(FileCheck(file, str(error), []))
        return EXIT_WRONG_INPUT
    if as_json:
        print_json(FileCheck(found[0].path, None, [one.document for one in found]))
        return 0
    for one in found:
        _print_dag(one)
    typer.echo(f"{found[0].path} is fine")
    return 0


def _of_file(name: str, overrides: list[str]) -> list[DagDetail]:
    """What a file defines now. Raises InputError."""
    from trainflow.insight.runs.dags import dags_of_file

    path = file_named(name)
    with open_workspace(path) as workspace:
        return dags_of_file(workspace, path, parse_overrides(overrides))


# -- for people ----------------------------------------------------------------------------------------------------


def _print_dag(dag: DagDetail) -> None:
    document = dag.document
    chain = document["chain"]
    lines = {
        "DAG": dag.dag_id,
        "description": document.get("description") or "",
        "file": dag.path,
        "version": f"{dag.version or 'as the file is now'} ({dag.digest[:19]}…)",
        "state": "paused" if dag.is_paused else "",
        "missing": f"its file does not define it any more, since {text(dag.missing_since)}"
        if dag.missing_since
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
    print_tree(document["tasks"])
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


def print_tree(tasks: list[dict[str, Any]]) -> None:
    """Print one line a task, in the order of the DAG, each under the last of those it waits for; others are named where
    they do not follow from that. A line is as long as it is: neither folded nor cut."""
    order = {task["task_id"]: number for number, task in enumerate(tasks)}
    ancestors = _ancestors(tasks)
    under: dict[str, list[tuple[str, str]]] = {}
    for task in tasks:
        parent = max(task["upstream"], key=lambda name: order[name], default="")
        under.setdefault(parent, []).append((task["task_id"], _task_line(task, parent, ancestors[parent])))
    # not rich.tree, which takes seconds for a chain of a thousand; nor recursion, for the same chain
    left = [(name, line, "") for name, line in reversed(under.get("", []))]
    while left:
        name, line, indent = left.pop()
        typer.echo(line)
        children = under.get(name, [])
        for child, drawn in reversed(children):
            branch, below = ("└── ", "    ") if child == children[-1][0] else ("├── ", "│   ")
            left.append((child, indent + branch + drawn, indent + below))


def _ancestors(tasks: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Task → all it waits for, directly or not; nothing for the root of the tree, `""`."""
    found: dict[str, set[str]] = {"": set()}
    for task in tasks:
        found[task["task_id"]] = set(task["upstream"]).union(*(found[name] for name in task["upstream"]))
    return found


def _task_line(task: dict[str, Any], parent: str, implied: set[str]) -> str:
    others = [name for name in task["upstream"] if name != parent and name not in implied]
    remarks = [task["operator"]]
    if task.get("trigger_rule", "all_success") != "all_success":
        remarks.append(f"trigger rule {task['trigger_rule']}")
    if others:
        remarks.append(f"also after {', '.join(others)}")
    if retries := task.get("retry", {}).get("retries"):
        remarks.append(counted(retries, "retry"))
    if timeout := task.get("execution_timeout_seconds"):
        remarks.append(f"at most {duration(timeout)}")
    if task.get("pool", "default_pool") != "default_pool":
        remarks.append(f"pool {task['pool']}")
    return f"{task['task_id']}  ({', '.join(remarks)})"
