"""Words that many commands know: what a person names, how what is typed becomes a value, and who types."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from trainflow.errors import InputError
from trainflow.observability.processes import hostname

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from trainflow.checkpoints.ledger.entries import Author

_T = TypeVar("_T")

PIPELINE = typer.Argument(metavar="PIPELINE", help="A pipeline file, its name in pipelines/, or the id of a DAG.")
OVERRIDES = typer.Option(
    [], "--set", metavar="NAME=VALUE", help="Override a value of the pipeline, e.g. --set split.partitions=7."
)
STAGE = typer.Option(None, "--stage", metavar="NAME", help="Only this stage, where the file has several.")
BRANCH = typer.Option(None, "--branch", metavar="NAME", help="This branch; default: the one the file trains.")
DAG_ARGUMENT = typer.Argument(metavar="DAG", help="Id of a DAG, or a pipeline file.")
RUN_ARGUMENT = typer.Argument(
    metavar="RUN", help="A run: its id, how its id begins, its number in the DAG (3), or 'latest'."
)
TASK_ARGUMENT = typer.Argument(metavar="TASK", help="Id of a task.")


def parse_overrides(given: list[str]) -> dict[str, str]:
    """`name=value` pairs. Raises InputError for what is none."""
    parsed = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {item}: write --set NAME=VALUE, e.g. --set split.partitions=7")
        parsed[key.strip()] = value
    return parsed


def conf_of(text: str | None) -> dict[str, Any]:
    """What `--conf` gives, a JSON object. Raises InputError for what is none."""
    import json

    from trainflow.bounds import MOST_NESTING

    if text is None:
        return {}
    try:
        value = json.loads(text)
    except RecursionError:
        raise InputError(
            f"--conf is nested too deeply: at most {MOST_NESTING} lists and objects inside each other"
        ) from None
    except ValueError as error:
        raise InputError(f"""--conf is not JSON: {error}. For example: --conf '{{"rows": 100}}'""") from None
    if not isinstance(value, dict):
        raise InputError(f"--conf must be a JSON object, not {text}")
    return value


def moment(written: str | None, option: str) -> datetime | None:
    """What an option says, a date or a date and time, UTC where it names no zone; None: it was not given. Raises
    InputError."""
    from trainflow.pipeline_spec.quantities import parse_moment

    return None if written is None else _parsed(parse_moment, written, option)


def duration_of(written: str, option: str) -> timedelta:
    """A duration as people type it, e.g. 12h. Raises InputError."""
    from trainflow.pipeline_spec.quantities import parse_duration

    return _parsed(parse_duration, written, option)


def _parsed(parse: Callable[[str], _T], written: str, option: str) -> _T:
    try:
        return parse(written)
    except ValueError as error:
        raise InputError(f"{option} {written}: {error}") from None


def person() -> Author:
    """The user of this process, on this machine; no run, no attempt."""
    import getpass

    from trainflow.checkpoints.ledger.entries import Author

    host = hostname()
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container with a user id that has no name
        user = "unknown"
    return Author(hostname=host, person=f"{user}@{host}")
