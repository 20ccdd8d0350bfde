"""`trainflow mlflow`: MLflow's web page over this project's runs."""

from __future__ import annotations

import typer

from trainflow.cli.render.output import EXIT_FAILED


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
            code = process.wait()
            typer.echo(f"MLflow ended by itself (exit code {code}):\n{server.last_words()}", err=True)
            return EXIT_FAILED
    except KeyboardInterrupt:
        typer.echo("")
        return 0


def _redeliver() -> int:
    from trainflow.actions.database import deliver_again
    from trainflow.clock import SystemClock
    from trainflow.pluralize import counted
    from trainflow.workspace.workspace import open_workspace

    with open_workspace() as workspace:
        again = deliver_again(workspace, SystemClock().now())
    when = "the engine, or the next start, delivers" if again else "nothing was refused"
    typer.echo(f"{counted(again, 'delivery')} to make again: {when}")
    return 0
