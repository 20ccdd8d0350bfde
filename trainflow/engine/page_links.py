"""Where the pages of a project are, for those who are told of its runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import quote

from sqlalchemy import Connection

from trainflow.metadata.queries import service_list_queries
from trainflow.metadata.queries.service_list_queries import API_SERVER
from trainflow.settings.model import Settings


def pages_address(connection: Connection, settings: Settings, now: datetime) -> str | None:
    """`api.url`; else the address of the API server, while one lives. None: no page is known."""
    if settings.api.url is None:
        dead_after = timedelta(seconds=settings.engine.dead_after_seconds)
        if not service_list_queries.shown_as_living(connection, now, dead_after, kind=API_SERVER):
            return None
    return settings.api.address


def chain_page(address: str, pipeline: str, stage: str, branch: str) -> str:
    """The page of a chain."""
    return f"{address}/chains/{'/'.join(quote(name, safe='') for name in (pipeline, stage, branch))}"


def run_page(address: str, dag_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"{address}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
