"""Entry of the `trainflow` command: the commands, and what an error looks like."""

from __future__ import annotations

import errno
import os
import re
import sys
from importlib import import_module
from typing import Any

import typer

from trainflow import __version__
from trainflow.bootstrap import is_replaced, run_again, said_of_two_builds
from trainflow.cli.render.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG_INPUT
from trainflow.errors import InputError, TrainflowError

#: what a word runs, in the order of the help: a module of `cli.commands` and the function or the group in it; and what
#: the help says of it, which imports none of them
_COMMANDS = {
    "start": ("start.start", "Train a pipeline until it is caught up."),
    "resume": ("resume.resume", "Decide about a chain that is stopped, and go on."),
    "repair": ("repair.repair", "Train what was stepped over and has arrived since."),
    "regrid": ("repair.regrid", "Go on with samples that are cut or placed otherwise."),
    "status": ("status.status", "Show the engine, and where each pipeline is."),
    "why": ("status.why", "Say in one sentence why nothing is training, or what is."),
    "plan": ("plan.plan", "Show the runs that would train what is ready now."),
    "audit": ("audit.audit", "Prove what was trained: each partition once, in order."),
    "report": ("report.report", "Write a report: one HTML file."),
    "schema": ("project.schema", "Print the JSON Schema of YAML pipelines."),
    "mlflow": ("engine.mlflow", "Serve MLflow's page of this project."),
    "ui": ("ui.ui", "Serve the pages of this project."),
    "init": ("project.init", "Lay out a project that runs as it is."),
    "standalone": ("engine.standalone", "Run the engine of this project."),
    "scheduler": ("engine.scheduler", "Run the scheduler alone."),
    "triggerer": ("engine.triggerer", "Run the triggerer alone."),
    "dag-processor": ("engine.dag_processor", "Run the DAG processor alone."),
    "api-server": ("engine.api_server", "Run the API server."),
    "execute-workload": ("workers.execute_workload", "Run one attempt that an executor handed over."),
    "stop": ("engine.stop", "Stop the engine of this project."),
}
_GROUPS = {
    "checkpoints": ("checkpoints.checkpoints", "What a chain has committed."),
    "celery": ("workers.celery", "Workers of the Celery executor."),
    "fleet": ("fleet.fleet", "Show who is alive over this database, and what waits."),
    "samples": ("samples.samples", "The partitions a pipeline trains on."),
    "dags": ("dags.dags", "DAGs: list, show, pause, test a file."),
    "runs": ("runs.runs", "Runs: list, show, trigger, cancel, clear."),
    "tasks": ("tasks.tasks", "Tasks: list, show, logs, clear, mark, test."),
    "pools": ("pools.pools", "Pools: limits that tasks share."),
    "tokens": ("tokens.tokens", "Tokens of the API server, for people and programs."),
    "config": ("project.config", "Settings in force, and where from."),
    "db": ("db.db", "The metadata database."),
}


#: what other tools call a command (Airflow, trainers, services)
_ELSEWHERE = {
    "backfill": "start",
    "fit": "start",
    "kill": "stop",
    "run": "start",
    "serve": "ui",
    "train": "start",
    "webserver": "api-server",
    "worker": "celery worker",
}


#: options of the command line itself: nothing is run with them
_OPTIONS = frozenset({"-h", "--help", "--version"})


def application(word: str | None = None) -> typer.Typer:
    """The command line with what `word` runs alone: to import and build the others takes as long as all else before it.
    With all of them where it names none; with their names and summaries where it is an option."""
    app = typer.Typer(
        name="trainflow",
        help="Train models that never stop being trained: checkpoints and samples, chained.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # plain help: drawing it with Rich costs 0.3 s
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    if word in _OPTIONS:
        for name, (_, summary) in (_COMMANDS | _GROUPS).items():
            app.command(name, help=summary)(_unread)
        return app
    everything = word not in _COMMANDS and word not in _GROUPS
    for name, (place, _) in _COMMANDS.items():
        if everything or name == word:
            app.command(name)(_found(place))
    for name, (place, _) in _GROUPS.items():
        if everything or name == word:
            app.add_typer(_found(place))
    return app


def _unread() -> None:
    """Stands for a command whose name alone is needed."""


def _found(place: str) -> Any:
    module, _, name = place.partition(".")
    return getattr(import_module(f"trainflow.cli.commands.{module}"), name)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trainflow {__version__}")
        raise typer.Exit


#: what people leave alone once it runs: where its package is installed anew under it, it is begun again
_GO_ON = {"start", "standalone", "scheduler", "triggerer", "dag-processor", "api-server", "celery"}
#: a folder that cannot be written, a broken disk: no mistake of ours, so a sentence says more than a traceback
_OF_THE_MACHINE = {
    errno.EACCES: "have access to it given",
    errno.EPERM: "have access to it given",
    errno.EROFS: "mount its disk to be written, or set TRAINFLOW_HOME to a folder on another one",
    errno.EIO: "its disk or network is broken: look into the log of the system",
}


def _options(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Train models that never stop being trained: checkpoints and samples, chained."""


def main() -> None:
    """Run the command line; every error that is ours becomes one message and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    try:
        code = application(next(iter(arguments), "--help"))(arguments, standalone_mode=False, color=_color())
    except InputError as error:
        return _complain(str(error), EXIT_WRONG_INPUT)
    except TrainflowError as error:
        return _complain(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        # by name: which of the two holds click's errors depends on Typer's version
        if type(error).__module__.startswith(("click", "typer")):
            return _usage(error)
        if (said := said_of_two_builds(error)) is not None:
            typer.echo(f"error: {said}", err=True)  # without more: what is imported now may not be there
            if arguments[0] in _GO_ON and is_replaced():
                typer.echo("it goes on as what is there now", err=True)
                run_again(without="--ready-descriptor")
            return EXIT_FAILED
        from trainflow.observability.resource_exhaustion import exhausted_resource

        ran_out = exhausted_resource(error)
        if isinstance(error, OSError) and (ran_out or error.errno in _OF_THE_MACHINE):
            where = f"{error.filename}: " if error.filename else ""
            return _complain(f"{where}{ran_out or _of_the_machine(error)}", EXIT_FAILED)
        if ran_out is not None:
            return _complain(ran_out, EXIT_FAILED)
        if type(error).__name__ == "OperationalError" and type(error).__module__.startswith("sqlalchemy"):
            return _complain(f"the metadata database cannot be used: {getattr(error, 'orig', error)}", EXIT_FAILED)
        raise
    return code if isinstance(code, int) else 0


def _of_the_machine(error: OSError) -> str:
    """What the machine refuses, and what to do about it."""
    if error.errno in (errno.EACCES, errno.EPERM) and isinstance(error.filename, str):
        from trainflow.observability.file_access import keeps_out

        whose = keeps_out(error.filename, to_write=True)
        if whose is not None:
            return f"{error.strerror}; {whose}: run this as that user, or set TRAINFLOW_HOME to a folder of your own"
    return f"{error.strerror}; {_OF_THE_MACHINE[error.errno or errno.EIO]}"


def _complain(message: str, code: int) -> int:
    from trainflow.observability.redaction import redact_text

    typer.secho(f"error: {redact_text(message)}", fg=typer.colors.RED, err=True, color=_color())
    return code


def _color() -> bool | None:
    """None: where the output is a terminal that knows colors. See https://no-color.org."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _usage(error: Exception) -> int:
    """Click's own errors: a wrong option, a missing argument, Ctrl-C in a prompt."""
    if type(error).__name__ == "Abort":
        return EXIT_INTERRUPTED
    show = getattr(error, "show", None)
    if show is None:
        raise error
    verb = re.match(r"No such command '([a-z-]+)'", str(getattr(error, "message", "")))
    if verb is not None and (found := _meant_by(verb[1])):
        error.message = f"{verb[0]}. It is {' or '.join(found)}."  # type: ignore[attr-defined]
    show()
    return EXIT_WRONG_INPUT


def _meant_by(verb: str) -> list[str]:
    """The commands that a word means: as another tool calls it, or where a person has left out of what it is one
    (`trainflow rewind`)."""
    if verb in _ELSEWHERE:
        return [f"'trainflow {_ELSEWHERE[verb]}'"]
    every = typer.main.get_command(application())
    groups = getattr(every, "commands", {})
    return [
        f"'trainflow {name} {verb}'"
        for name, group in groups.items()
        if verb in (getattr(group, "commands", None) or ())
    ]


if __name__ == "__main__":
    main()
