"""What a person calls a DAG, a run, a task, a checkpoint, and which one that is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.errors import DagNotFound, InputError, NotFound
from trainflow.humanize import counted

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.settings.project import Project
    from trainflow.workspace.workspace import Workspace

#: what a person calls the newest checkpoint of the line
HEAD = "head"
#: before the name of an alias that stands for a checkpoint
ALIAS = "@"
#: so many numbers of checkpoints are told
_MOST_NUMBERS = 20
SUFFIXES = (".yaml", ".yml", ".py")
#: a pipeline and a checkpoint of it in one word, as MLflow and container registries write a version: neither sign is
#: in a name, and a folder may be called as it likes
_ONE_WORD = re.compile(r"(?P<pipeline>.+?)(?::(?P<which>@?[A-Za-z0-9_.\-]+)|(?P<alias>@[A-Za-z0-9_.\-]+))")


def is_file(name: str) -> bool:
    """Whether a DAG argument names a pipeline file."""
    return name.endswith(SUFFIXES)


def file_named(name: str) -> Path:
    """The pipeline file. Raises InputError when there is none."""
    from trainflow.workspace.locate import pipeline_path

    return pipeline_path(name)


def workspace_for(dag: str | None) -> Workspace:
    """The project of a DAG argument: that of the file where it is one, otherwise the one this folder is in."""
    from trainflow.workspace.workspace import open_workspace

    return open_workspace(file_named(dag) if dag is not None and is_file(dag) else None)


def dag_named(connection: Connection, project: Project, name: str) -> Row[Any]:
    """The row of the DAG. Raises DagNotFound with near matches; InputError for a file that defines not just one, as it
    was read last."""
    rows = dags_named(connection, project, name)
    if len(rows) > 1:
        from trainflow.metadata.queries import dag_queries

        current = dag_queries.of_path(connection, rows[0].path)
        rows = [row for row in rows if row.dag_id in current]
    if len(rows) > 1:
        raise InputError(
            f"{name} defines {counted(len(rows), 'DAG')}: name one of {', '.join(row.dag_id for row in rows)}"
        )
    return rows[0]


def dags_named(connection: Connection, project: Project, name: str) -> list[Row[Any]]:
    """The rows of the DAG of an id, or of all DAGs of a file or of the name of one in pipelines/, those of its branches
    too. Raises DagNotFound with near matches, InputError."""
    from trainflow.metadata.queries import dag_queries

    if not is_file(name):
        try:
            return [dag_queries.get(connection, name)]
        except DagNotFound as error:
            stored = _stored(project, name)
            ids = dag_queries.of_every_branch(connection, stored) if stored else []
            if not ids:
                hint = f". {stored} is there: 'trainflow dags test {stored}' says what it defines" if stored else ""
                raise DagNotFound(f"{error}{hint}") from None
            return [dag_queries.get(connection, dag_id) for dag_id in ids]
    path = project.relative(file_named(name))
    ids = dag_queries.of_every_branch(connection, path)
    if not ids:
        raise InputError(
            f"no DAG of {path} is known yet: an engine reads it ('trainflow start {path}', or 'trainflow standalone'); "
            f"'trainflow dags test {path}' says what it defines"
        )
    return [dag_queries.get(connection, dag_id) for dag_id in ids]


def _stored(project: Project, name: str) -> str | None:
    """The file of that name in pipelines/, as the database knows it."""
    for suffix in SUFFIXES:
        path = project.root / "pipelines" / f"{name}{suffix}"
        if path.is_file():
            return project.relative(path)
    return None


def run_named(connection: Connection, project: Project, dag: str, run: str) -> Row[Any]:
    """The row of the run. Raises DagNotFound, DagRunNotFound with near matches."""
    from trainflow.metadata.queries import run_queries

    return run_queries.named(connection, dag_named(connection, project, dag).dag_id, run)


def check_tasks(names: Iterable[str], known: list[str], where: str) -> None:
    """Raise NotFound, with near matches, for the first task that is not there."""
    from trainflow.identifiers import did_you_mean

    for name in names:
        if name not in known:
            raise NotFound(f"{where} has no task '{name}'{did_you_mean(name, known)}")


def checkpoint_argument(pipeline: str, which: str | None) -> tuple[str, str]:
    """The pipeline and the checkpoint that are meant by two arguments, or by one: `flight_delay:27`,
    `flight_delay:head`, `flight_delay@champion`. Raises InputError where each of two names a checkpoint."""
    parts = _ONE_WORD.fullmatch(pipeline) if not is_file(pipeline) else None
    if parts is None:
        return pipeline, which or HEAD
    named = parts["which"] or parts["alias"]
    if which is not None:
        raise InputError(f"'{pipeline}' names checkpoint {named}, and '{which}' another one: leave one of them out")
    return parts["pipeline"], named


def checkpoint_named(ledger: Ledger, which: str) -> Checkpoint:
    """The checkpoint of a number, an id, an alias (`@champion`), or the head. Raises NotFound that names what
    there is."""
    if which == HEAD:
        return ledger.checkpoint()
    if which.startswith(ALIAS):
        return _promoted(ledger, which)
    number = _number(which)
    summary = next((each for each in ledger.back() if number == each.number or which == each.id), None)
    if summary is None:
        raise NotFound(f"chain {ledger.chain} in {ledger.store.url} {_why_not_kept(ledger, which)}")
    return ledger.checkpoint(summary.id)


def _number(which: str) -> int | None:
    return int(which) if which.isdecimal() else None


def _why_not_kept(ledger: Ledger, which: str) -> str:
    never, kept = _never_there(ledger, which), [each.number for each in ledger.kept()]
    if never or not kept:
        return never or f"has no checkpoint {which}: there is none yet"
    many = ", ".join(map(str, kept[-_MOST_NUMBERS:]))
    listed = f"kept are {many}" if len(kept) <= _MOST_NUMBERS else f"the newest of {len(kept)} kept ones are {many}"
    return (
        f"keeps no checkpoint {which}: {listed}. What was pruned is in 'trainflow checkpoints ledger "
        f"{ledger.chain.arguments}'"
    )


def _never_there(ledger: Ledger, which: str) -> str:
    """Why a number is none of the chain's; empty where it may be one that was pruned, or an id."""
    from trainflow.checkpoints.ledger.entries import Fork

    state, number = ledger.state(), _number(which)
    if number is None:
        return ""
    if isinstance(state.start, Fork) and 0 < number <= state.start.number:
        theirs = f"{number} is one of {state.start.origin.chain}, which it was forked from"
        return f"begins with checkpoint {state.start.number + 1}: {theirs}"
    if number == 0 or number > state.last_number:
        newest = f"its newest is {state.last_number}" if state.last_number else "there is none yet"
        return f"never had a checkpoint {number}: {newest}"
    return ""


def _promoted(ledger: Ledger, which: str) -> Checkpoint:
    promoted = ledger.state().promoted
    checkpoint_id = promoted.get(which.removeprefix(ALIAS))
    if checkpoint_id is None:
        there = ", ".join(f"{ALIAS}{alias}" for alias in sorted(promoted)) or "none"
        raise NotFound(
            f"chain {ledger.chain} in {ledger.store.url} has no alias {which}: there is {there} ('trainflow "
            f"checkpoints promote {ledger.chain.arguments} head --alias NAME' gives one)"
        )
    return ledger.checkpoint(checkpoint_id)


def checkpoint_ever(ledger: Ledger, which: str, entries: list[LedgerEntry]) -> Checkpoint:
    """The checkpoint of a number, an id, an alias or the head; be it pruned or rewound. `entries` are all of the
    ledger's, with numbers. Raises NotFound."""
    from trainflow.checkpoints.ledger.entries import Checkpoint as Kind

    if which == HEAD:
        return ledger.checkpoint()
    if which.startswith(ALIAS):
        return _promoted(ledger, which)
    number = _number(which)
    for entry in entries:
        if isinstance(entry, Kind) and (entry.id == which or entry.number == number):
            return entry
    never = _never_there(ledger, which) or f"never had a checkpoint {which}"
    raise NotFound(
        f"chain {ledger.chain} in {ledger.store.url} {never} ('trainflow checkpoints ledger "
        f"{ledger.chain.arguments}' shows all that it had)"
    )
