"""Where the pages of a project are served, and a browser that is shown them."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta

import msgspec

from trainflow.errors import InputError, SettingsError
from trainflow.metadata.queries import service_list_queries
from trainflow.observability.processes import hostname
from trainflow.settings.api_address import listen, shown_address
from trainflow.settings.model import ApiSettings
from trainflow.workspace.workspace import Workspace


def listen_for_pages(api: ApiSettings) -> tuple[socket.socket, str]:
    """A socket at the address of the settings, or at a free port beside it where that one is taken, and how a person
    reaches it. Raises SettingsError for an address that may not be."""
    try:
        return listen(api), shown_address(api, hostname())
    except SettingsError:
        raise
    except InputError:
        listener = socket.socket(socket.AF_INET6 if ":" in api.host else socket.AF_INET)
        try:
            listener.bind((api.host, 0))
            listener.listen()
        except OSError as error:
            listener.close()
            raise InputError(f"cannot listen on {api.host}: {error.strerror}") from None
        # an address for others is one of the port that is taken
        there = msgspec.structs.replace(api, port=listener.getsockname()[1], url=None)
        return listener, shown_address(there, hostname())


def page_address(workspace: Workspace, now: datetime) -> str | None:
    """Where an API server that lives serves the pages of this home; None: none does."""
    database = workspace.existing_database
    if database is None:
        return None
    dead_after = timedelta(seconds=workspace.settings.engine.dead_after_seconds)
    with database.reading() as connection:
        living = service_list_queries.shown_as_living(connection, now, dead_after)
    here = [row for row in living if row.kind == service_list_queries.API_SERVER and row.hostname == hostname()]
    return shown_address(workspace.settings.api, hostname()) if here else None


def show_in_browser(address: str) -> bool:
    """Have the browser of this desktop open an address; False: there is none."""
    import webbrowser

    try:
        return webbrowser.open(address.partition(",")[0])
    except webbrowser.Error:
        return False
