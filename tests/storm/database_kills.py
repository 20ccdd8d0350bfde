"""Kill the database server under a chain whose tasks run elsewhere, as often as wanted: with any server, through any
executor. The chain has to be that of one machine that was left alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.fleets import EXECUTORS, DatabaseKills, fleet, trains_while
from tests.support.local_databases import LocalServer, local_mariadb, local_postgres
from tests.support.tiny_project import FILE, assert_trained_exactly_once, digest, tiny_project

DATABASES: dict[str, Callable[..., AbstractContextManager[LocalServer]]] = {
    "postgresql": local_postgres,
    "mariadb": local_mariadb,
}
#: days of a split
_DAYS = 3


def storm(folder: Path, executor: str, database: str, kills: int) -> bool:
    """Play it; whether the chain is as it has to be."""
    days = _DAYS * (kills + 1)
    alone = tiny_project(folder / "alone", days=days)
    alone.start(FILE)
    with (
        DATABASES[database](durable=True) as server,
        EXECUTORS[executor](folder) as elsewhere,
        fleet(folder / "fleet", elsewhere.table, alone, database_url=server.new_database(), days=days) as project,
        elsewhere.workers(project),
    ):
        trains_while(project, DatabaseKills(server, project), times=kills)
        assert_trained_exactly_once(project, days)
        same = digest(project) == digest(alone) and project.ask("audit", FILE).code == 0
    alone.close()
    sys.stdout.write(f"{database}, {executor}: {kills} kills: {'as on one machine' if same else 'WRONG'}\n")
    sys.stdout.flush()
    return same
