"""`trainflow api-server`: what is asked of the control plane over HTTP."""

from __future__ import annotations

import typer


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
    import socket

    from msgspec.structs import replace

    from trainflow.api.server import ApiServer
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
    address = shown_address(settings.api, socket.gethostname())
    server = ApiServer(project, settings, SystemClock(), listen(settings.api), sends_logs=True)
    server.run(lambda: typer.echo(f"api-server is alive at {address}, Ctrl-C stops it", err=True))
    typer.echo("api-server has stopped", err=True)
    return 0
