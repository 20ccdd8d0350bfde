"""A person has promoted a checkpoint by hand: no commit triggers the stages that start from what is promoted, so
the promotion starts them.

What a follower does then is the rule of its own runs, asked of the ledgers. Without an engine nothing is begun: the
next start looks by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection

from trainflow.actions.start import Look, chains_to_look_at, create_run, key_of, will_trigger
from trainflow.checkpoints.chain import ChainKey
from trainflow.engine.mirrored_run import results_by_role
from trainflow.metadata import dag_queries, run_queries, xcom_queries
from trainflow.serialization.document import DagDocument, decode
from trainflow.workspace.workspace import Workspace

#: begun: a run was; at work: the runs there are will come to it; waits: for something else; next start: there is no
#: engine now that could begin one
What = Literal["begun", "at work", "waits", "next start"]


class PromotedStage(msgspec.Struct, frozen=True):
    """What becomes of a follower."""

    dag_id: str
    what: What
    run_id: str | None = None


def follows(document: DagDocument, base: ChainKey, alias: str) -> bool:
    """Whether runs of the DAG start from what is promoted to `alias` in the chain."""
    init = document.chain.init_from if document.chain else None
    return init is not None and (init.chain, init.at) == (base, "promoted") and init.alias in (None, alias)


def trigger_dependents(workspace: Workspace, base: ChainKey, alias: str, now: datetime) -> list[PromotedStage]:
    """Begin a run of each DAG that starts from what was promoted, unless one that is under way comes to it."""
    database = workspace.database
    with database.reading() as connection:
        rows = dag_queries.everything(connection)
    documents = [decode(row.document) for row in rows if row.missing_since is None]
    dependents = [document for document in documents if follows(document, base, alias)]
    look = chains_to_look_at(dependents, workspace.project, workspace.settings)
    dag_ids = {key_of(document.chain): document.dag_id for document in documents if document.chain}
    return database.write(lambda connection: [_trigger(connection, each, dag_ids, look, now) for each in dependents])


def _trigger(
    connection: Connection, document: DagDocument, dag_ids: Mapping[ChainKey, str], look: Look, now: datetime
) -> PromotedStage:
    assert document.chain is not None
    init, ahead = document.chain.init_from, look(document.chain)
    assert init is not None
    if any(not _is_ending(connection, run, document) for run in run_queries.unfinished_of(connection, document.dag_id)):
        return PromotedStage(document.dag_id, "at work")
    base = dag_ids.get(init.chain)
    if ahead is not None and (ahead.waits is not None or (init.once and ahead.begun)):
        return PromotedStage(document.dag_id, "waits")
    if (
        base is not None
        and ahead is not None
        and _is_triggered_anyway(connection, base, ahead.pinned_run, document, once=init.once)
    ):
        return PromotedStage(document.dag_id, "at work")
    conf: dict[str, Any] = {"init_from": ahead.pin} if ahead is not None and ahead.pin else {}
    number = create_run(connection, document.dag_id, conf, now)
    return PromotedStage(document.dag_id, "begun", run_queries.by_id(connection, number).run_id)


def _is_ending(connection: Connection, run: Any, document: DagDocument) -> bool:
    """Whether it has looked before there was anything to start from, and triggers nothing."""
    head = results_by_role(document, xcom_queries.of_run(connection, run.id)).get("checkpoint")
    return isinstance(head, dict) and bool(head.get("waits"))


def _is_triggered_anyway(
    connection: Connection, base: str, pinned_run: str | None, document: DagDocument, *, once: bool
) -> bool:
    """Whether a run of the base triggers the follower: one that begins once when the base is caught up, any other when
    the newest checkpoint is committed."""
    if once:
        return bool(run_queries.unfinished_of(connection, base))
    return will_trigger(connection, base, pinned_run, document.dag_id)
