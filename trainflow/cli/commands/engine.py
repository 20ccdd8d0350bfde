"""`trainflow standalone`, `scheduler`, `triggerer`, `dag-processor`, `api-server`: run parts of the control plane, and
`stop`; `mlflow`: serve its page over this project's runs."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import typer

from trainflow.cli.render.output import EXIT_FAILED
from trainflow.observability.processes import hostname

if TYPE_CHECKING:
    from trainflow.engine.engine import Engine
    from trainflow.settings.project import Project


log = logging.getLogger(__name__)


def standalone(
    no_api_server: bool = typer.Option(False, "--no-api-server", help="Do not start the API server."),
) -> int:
    """Run the engine of this project.

    Everything in one process, and the API server beside it, until Ctrl-C, SIGTERM or 'trainflow stop'. Reads the
    project's pipelines and looks after their runs; it starts none by itself: 'trainflow start FILE' and 'trainflow runs
    trigger DAG' do. Where the port of the API server is taken, it goes on without, and says so. Its log
    goes to .trainflow/logs/engine.log. A second Ctrl-C stops at once.

    Exit codes: 0 stopped, 1 another engine owns this project, 2 wrong input.
    """
    parts = {"scheduler", "triggerer", "dag_processor", "mirror"}
    return _run("standalone", parts, locked=True, to_file=True, serves=not no_api_server)


def scheduler() -> int:
    """Run the scheduler alone.

    With its executor and the MLflow mirror, until Ctrl-C or SIGTERM. Logs to stderr. One a home; schedulers with homes
    of their own may share a PostgreSQL or MySQL database. Exit codes: see standalone.
    """
    return _run("scheduler", {"scheduler", "mirror"}, locked=True)


def triggerer() -> int:
    """Run the triggerer alone.

    Deferred tasks wait in it. Until Ctrl-C or SIGTERM; logs to stderr.
    """
    return _run("triggerer", {"triggerer"})


def dag_processor() -> int:
    """Run the DAG processor alone.

    It reads the project's pipeline files, and again whenever they change. Until Ctrl-C or SIGTERM; logs to stderr.
    """
    return _run("dag-processor", {"dag_processor"})


def _run(name: str, parts: set[str], *, locked: bool = False, to_file: bool = False, serves: bool = False) -> int:
    from trainflow.actions.start import check_executors
    from trainflow.clock import SystemClock
    from trainflow.observability.standard_streams import outlive_readers
    from trainflow.settings.load import load_settings
    from trainflow.workspace.workspace import find_project

    outlive_readers(log.warning)
    project = find_project()
    settings = load_settings(project)
    if "scheduler" in parts:
        check_executors(project, settings)
    with ExitStack() as stack:
        if locked:
            from trainflow.engine.lock import engine_lock

            stack.enter_context(engine_lock(project.home))
        from trainflow.engine.engine import Engine
        from trainflow.engine.startup import Part, stopping_on_signals
        from trainflow.observability.logs import configure_logging
        from trainflow.settings.api_address import try_to_listen

        configure_logging(settings.logging.level, project.home.engine_log if to_file else None)
        listener, served_at = try_to_listen(settings.api) if serves else (None, "not started")
        chosen = frozenset(Part(part) for part in parts)
        engine = Engine(project, settings, clock=SystemClock(), parts=chosen, api_listener=listener)
        if to_file:
            engine.database.tell = partial(typer.echo, err=True)
        stack.enter_context(stopping_on_signals(engine.request_stop))
        stack.enter_context(engine.running())
        engine.scan_files()
        _greet(name, engine, project, served_at)
        engine.run(lambda: False)
        typer.echo(f"{name} is stopping", err=True)
    if engine.is_replaced:
        from trainflow.cli.start_or_follow import as_installed_now

        return as_installed_now()
    return 0


def _greet(name: str, engine: Engine, project: Project, served_at: str) -> None:
    """Where it is, and how to see what it does."""
    import os

    lines = {
        f"{name}": f"is alive (pid {os.getpid()}), Ctrl-C stops it",
        "project": str(project.root),
        "database": engine.database.url.render_as_string(hide_password=True),
    }
    if name == "standalone":
        lines |= {
            "API": served_at,
            "listens on": str(project.home.socket_path),
            "log": str(project.home.engine_log),
            "pipelines": "trainflow dags list · trainflow dags errors",
            "train": "trainflow start FILE · trainflow runs trigger DAG",
            "see": "trainflow status · trainflow runs list · trainflow mlflow",
        }
    width = max(len(key) for key in lines)
    for key, value in lines.items():
        typer.echo(f"{key:<{width}}  {value}", err=name != "standalone")


def stop(
    now: bool = typer.Option(False, "--now", help="At once: do not let tasks finish; they are tried again later."),
    wait: float | None = typer.Option(None, "--wait", metavar="SECONDS", help="Give up waiting; default: never."),
) -> int:
    """Stop the engine of this project.

    Waits until it has stopped. It tells the attempts that run to stop, gives them engine.stop_grace_seconds, and lets a
    commit come to its end. What was stopped is not counted as a failure: the next start goes on from there.

    Exit code 0 when no engine is alive (any more), 1 when it still is after --wait.
    """
    from trainflow.actions.stop import tell_to_stop, wait_until_stopped
    from trainflow.clock import SystemClock
    from trainflow.workspace.workspace import find_project

    home = find_project().home
    pid = tell_to_stop(home, at_once=now)
    if pid is None:
        typer.echo("no engine is alive")
        return 0
    if not wait_until_stopped(home, pid, SystemClock(), seconds=wait):
        typer.echo(f"the engine (pid {pid}) still runs after {wait:g} s; 'trainflow stop --now' ends it", err=True)
        return EXIT_FAILED
    typer.echo(f"the engine (pid {pid}) has stopped")
    return 0


def mlflow(
    host: str = typer.Option(
        "127.0.0.1", "--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0: everywhere."
    ),
    port: int = typer.Option(5000, "--port", metavar="PORT", min=1, max=65535, help="Port to listen on."),
    redeliver: bool = typer.Option(
        False, "--redeliver", help="Serve nothing: let what MLflow refused be delivered again, and end."
    ),
) -> int:
    """Serve MLflow's page of this project.

    Runs until Ctrl-C. Shows what engines have mirrored into the project's home (or into the database that tracking.uri
    names). Where tracking.uri is a server already, its address is all there is to know (exit code 2).

    Exit codes: 0 stopped, 1 MLflow ended by itself, 2 wrong input.
    """
    from trainflow.workspace.workspace import find_project

    project = find_project()
    if redeliver:
        return _redeliver()
    from trainflow.actions.mlflow_server import mlflow_server

    server = mlflow_server(project, host, port)
    typer.echo(f"MLflow is starting … (log: {server.log})", err=True)
    try:
        if (code := server.make_store()) != 0:
            typer.echo(f"MLflow's store could not be made (exit code {code}):\n{server.last_words()}", err=True)
            return EXIT_FAILED
        with server.running() as process:
            if server.answers(process):
                typer.echo(f"MLflow: {server.command.url}  (Ctrl-C ends it)")
                pages = server.chain_pages()
                width = max((len(page.name) for page in pages), default=0)
                for page in pages:
                    typer.echo(f"  {page.name:<{width}}  {page.url}")
            code = process.wait()
            typer.echo(f"MLflow ended by itself (exit code {code}):\n{server.last_words()}", err=True)
            return EXIT_FAILED
    except KeyboardInterrupt:
        typer.echo("")
        return 0


def _redeliver() -> int:
    from trainflow.actions.database import deliver_again
    from trainflow.clock import SystemClock
    from trainflow.humanize import counted
    from trainflow.workspace.workspace import open_workspace

    with open_workspace() as workspace:
        again = deliver_again(workspace, SystemClock().now())
    when = "the engine, or the next start, delivers" if again else "nothing was refused"
    typer.echo(f"{counted(again, 'delivery')} to make again: {when}")
    return 0


def api_server(
    host: str | None = typer.Option(None, "--host", metavar="ADDRESS", help="Listen there; default: api.host."),
    port: int | None = typer.Option(None, "--port", metavar="PORT", min=1, max=65535, help="Default: api.port."),
) -> int:
    """Run the API server.

    Attempts on other hosts reach the control plane here (/execution/v1). /health says that it answers, /ready whether a
    scheduler is alive, /metrics where chains are and what attempts did, for Prometheus, /openapi.json what it can be
    asked. Until Ctrl-C or SIGTERM; logs to stderr. 'trainflow standalone' starts one by itself.

    It listens on loopback, unless api.host or --host says otherwise: then api.token has to be set. Several may run over
    one PostgreSQL or MySQL database. Exit codes: 0 stopped, 2 wrong input, or the port is taken.
    """
    from msgspec.structs import replace

    from trainflow.api.server import ApiServer
    from trainflow.bootstrap import is_replaced
    from trainflow.clock import SystemClock
    from trainflow.observability.logs import configure_logging
    from trainflow.settings.api_address import listen, shown_address
    from trainflow.settings.load import load_settings
    from trainflow.workspace.workspace import find_project

    project = find_project()
    settings = load_settings(project)
    given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    settings = replace(settings, api=replace(settings.api, **given))
    configure_logging(settings.logging.level)
    project.home.create()
    address = shown_address(settings.api, hostname())
    server = ApiServer(project, settings, SystemClock(), listen(settings.api), sends_logs=True)
    replaced = server.run(
        lambda: typer.echo(f"api-server is alive at {address}, Ctrl-C stops it", err=True), is_over=is_replaced
    )
    typer.echo("api-server has stopped", err=True)
    if replaced:
        from trainflow.cli.start_or_follow import as_installed_now

        return as_installed_now()
    return 0
