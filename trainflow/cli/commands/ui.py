"""`trainflow ui`: the pages of this project."""

from __future__ import annotations

import typer


def ui(
    port: int | None = typer.Option(None, "--port", metavar="PORT", min=1, max=65535, help="Default: api.port."),
    open_page: bool = typer.Option(False, "--open", help="Show it in the browser."),
) -> int:
    """Serve the pages of this project.

    Every chain with its partitions, checkpoints, runs and logs, until Ctrl-C. While no engine is alive nothing can be
    done from there; with one, forms do what commands do, and show first what that would be. Where an API server of this
    home is alive already ('trainflow standalone' has one), its address is all there is to know (exit code 0). Where the
    port is taken by something else, another one is used.

    Exit codes: 0 stopped, 2 wrong input.
    """
    from msgspec.structs import replace

    from trainflow.actions.page import listen_for_pages, page_address, show_in_browser
    from trainflow.api.server import ApiServer
    from trainflow.clock import SystemClock
    from trainflow.observability.logs import configure_logging
    from trainflow.workspace.workspace import open_workspace

    with open_workspace() as workspace:
        settings, project = workspace.settings, workspace.project
        there = page_address(workspace, SystemClock().now()) if port is None else None
    if there is not None:
        typer.echo(f"page: {there}")
        if open_page:
            show_in_browser(there)
        return 0
    if port is not None:
        settings = replace(settings, api=replace(settings.api, port=port))
    configure_logging(settings.logging.level)
    project.home.create()
    listener, address = listen_for_pages(settings.api)

    def ready() -> None:
        typer.echo(f"page: {address}  (Ctrl-C ends it)")
        if open_page:
            show_in_browser(address)

    server = ApiServer(project, settings, SystemClock(), listener)
    server.run(ready)
    return 0
