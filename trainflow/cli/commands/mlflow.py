"""`trainflow mlflow`: MLflow's web page over this project's runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trainflow.cli.render.output import EXIT_FAILED

if TYPE_CHECKING:
    import subprocess


_LOOK_SECONDS = 0.2
_STOP_SECONDS = 10.0
_LAST_BYTES = 2000


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
    from trainflow.settings.load import load_settings
    from trainflow.tracking.ui import server_command
    from trainflow.workspace.workspace import find_project

    project = find_project()
    if redeliver:
        return _redeliver()
    command = server_command(load_settings(project).tracking, project.home, host=host, port=port)
    _check_free(host, port)
    project.home.create()
    log = project.home.path / "logs" / "mlflow.log"
    typer.echo(f"MLflow is starting … (log: {log})", err=True)
    try:
        if command.make_store is not None:
            with _child(command.make_store, {}, log) as making:
                if (code := making.wait()) != 0:
                    typer.echo(f"MLflow's store could not be made (exit code {code}):\n{_last_words(log)}", err=True)
                    return EXIT_FAILED
        with _child(command.argv, command.environment, log) as serving:
            if _listening(serving, host, port):
                typer.echo(f"MLflow: {command.url}  (Ctrl-C ends it)")
            code = serving.wait()
            typer.echo(f"MLflow ended by itself (exit code {code}):\n{_last_words(log)}", err=True)
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


def _check_free(host: str, port: int) -> None:
    import socket

    from trainflow.errors import InputError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from None


@contextmanager
def _child(argv: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; whatever ends this command ends all of the group."""
    import os
    import signal
    import subprocess

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _listening(process: subprocess.Popen[bytes], host: str, port: int) -> bool:
    """Wait until it answers; False when it ended before."""
    import socket

    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while process.poll() is None:
        try:
            socket.create_connection((reachable, port), timeout=1.0).close()
        except OSError:
            time.sleep(_LOOK_SECONDS)
        else:
            return True
    return False


def _last_words(log: Path) -> str:
    from trainflow.observability.redaction import redact_text

    return redact_text(log.read_bytes()[-_LAST_BYTES:].decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    import contextlib
    import os
    import signal
    import subprocess

    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        # its workers are in the same group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return
