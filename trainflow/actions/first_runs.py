"""Begin to train what a pipeline file defines, or go on where it was left.

The ledgers decide which stages have something to do, so a database that was deleted loses nothing: a stage whose run a
commit should have triggered, but was killed before, gets that run here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row

from trainflow.checkpoints.chain import ChainKey
from trainflow.errors import StateError, TrainflowError
from trainflow.identifiers import manual_run_id
from trainflow.insight.chains.lost_ledger_end import committed_by, describe_loss, key_of
from trainflow.insight.progress import HeadSeen, ProgressFeed
from trainflow.messages.workload import DagSource
from trainflow.metadata import run_creation
from trainflow.metadata.queries import dag_queries, run_queries, task_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.serialization.document import ChainDocument, DagDocument, upstream_first
from trainflow.states import RUN_FINISHED, DagRunType, TaskInstanceState, TriggeredBy
from trainflow.workspace.workspace import Workspace

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.insight.chains.next_run import NextRun

log = logging.getLogger(__name__)

#: how a chain of the file stands with its upstream; None: it cannot be known from here
Look = Callable[[ChainDocument], "NextRun | None"]

#: begins or finds the runs to follow: workspace, the file in the project with what it was read with, now
Begin = Callable[[Workspace, DagSource, datetime], list[ProgressFeed]]


def begin(workspace: Workspace, source: DagSource, now: datetime) -> list[ProgressFeed]:
    """Follow the unfinished run of each DAG of the file, or queue a new one if it has something to do that nothing else
    triggers."""
    with workspace.database.reading() as connection:
        documents = documents_of(connection, source)
    look = chains_to_look_at(documents, workspace)
    feeds = workspace.database.write(lambda connection: begin_or_follow(connection, documents, look, now))
    tell_heads(feeds, workspace)
    tell_losses(feeds, workspace)
    return feeds


def tell_losses(feeds: Iterable[ProgressFeed], workspace: Workspace) -> None:
    """Ask the ledgers of chains that were committed to from here whether they still know it: one that lost its end with
    all of the store looks whole by itself."""
    feeds = [feed for feed in feeds if feed.chain is not None]
    with workspace.database.reading() as connection:
        committed = committed_by(connection, [feed.dag_id for feed in feeds])
    for feed in feeds:
        found = committed.get(feed.dag_id)
        if found is not None and feed.chain is not None:
            with suppress(TrainflowError):  # the run says what is wrong with its store
                ledger = _ledger(feed.chain, workspace)
                feed.loss = describe_loss(found, ledger.state().last_number, ledger.store.url)
        if feed.loss is not None:
            log.warning("%s: %s", feed.dag_id, feed.loss)


def tell_heads(feeds: Iterable[ProgressFeed], workspace: Workspace) -> None:
    """Ask the ledgers where the chains are whose runs were under way; others read theirs when they begin."""
    for feed in feeds:
        if feed.joined and feed.chain is not None:
            # the settings may not do to reach the store: then the runs say it
            with suppress(TrainflowError):
                ledger = _ledger(feed.chain, workspace)
                state = ledger.state()
                uri = ledger.store.uri(state.head.artifacts.path) if state.head else None
                feed.tell_head(HeadSeen(state.generation, state.head_number, state.watermark, uri))


def begin_or_follow(
    connection: Connection, documents: list[DagDocument], look: Look, now: datetime
) -> list[ProgressFeed]:
    """What is followed, one a DAG, in the order of the file's stages."""
    lock_dags(connection, [document.dag_id for document in documents])
    by_chain = {key_of(each.chain): each.dag_id for each in documents if each.chain}
    triggered = {trigger for each in documents for trigger in _triggers(each)}
    roots: dict[str, frozenset[int]] = {}
    outdated: dict[str, int] = {}
    begins: dict[str, int] = {}
    newest = run_queries.newest(connection)
    for document in documents:
        unfinished = run_queries.unfinished_of(connection, document.dag_id)
        if unfinished:
            # several, where a person has queued runs of their own
            roots[document.dag_id] = frozenset(run.root_id or run.id for run in unfinished)
            begins[document.dag_id] = unfinished[0].id
            if unfinished[0].version_id != dag_queries.get(connection, document.dag_id).version_id:
                outdated[document.dag_id] = unfinished[0].number
                _look_anew(connection, unfinished[0], now)
            continue
        conf = _due(connection, document, by_chain, triggered, look)
        if conf is not None:
            roots[document.dag_id] = frozenset({create_run(connection, document.dag_id, conf, now)})
    followed = frozenset(document.dag_id for document in documents)
    every = frozenset[int]().union(*roots.values())
    found = [
        ProgressFeed(
            each.dag_id,
            roots.get(each.dag_id, frozenset()),
            each.chain,
            now,
            roots=every,
            followed=followed,
            watermark=_watermark(each.chain, look),
            outdated=outdated.get(each.dag_id),
        )
        for each in documents
        if each.dag_id in roots or (each.chain and each.chain.init_from)
    ]
    itself = {document.dag_id for document in documents if document.dag_id in _triggered_by(document)}
    for feed in found:
        feed.continues_itself = feed.dag_id in itself
        if feed.dag_id in begins:
            feed.joins(connection, begins[feed.dag_id])
        else:
            feed.begins_after(newest)
    return found


def lock_dags(connection: Connection, dag_ids: Iterable[str]) -> None:
    """Have no other process create runs of these before this transaction ends: who finds that there is none creates
    one, and of two at once each would."""
    for dag_id in sorted(dag_ids):
        dag_queries.lock(connection, dag_id)


def _look_anew(connection: Connection, run: Row[Any], now: datetime) -> None:
    """Let a run that waits for samples look for them again: what it waits for may be what was changed in the file."""
    try:
        document, _ = Versions().get(connection, run.version_id)
    except StateError:
        return  # the scheduler fails it, and says why; the next start begins another one
    states = task_queries.states_in_run(connection, run.id)
    waits = {
        task.task_id
        for task in document.tasks
        if task.role == "samples" and states.get(task.task_id) == TaskInstanceState.DEFERRED
    }
    if waits:
        run_queries.clear(connection, run.id, now, waits)


def _watermark(chain: ChainDocument | None, look: Look) -> datetime | None:
    """Where a stage that nothing may be begun for stands; the runs of the others say it."""
    ahead = look(chain) if chain is not None and chain.init_from is not None else None
    return ahead.watermark if ahead is not None else None


def _due(
    connection: Connection,
    document: DagDocument,
    by_chain: Mapping[ChainKey, str],
    triggered: set[str],
    look: Look,
) -> dict[str, Any] | None:
    """The conf of the run that is to be begun; None: none is."""
    init = document.chain.init_from if document.chain else None
    if document.chain is None or init is None:
        return None if document.dag_id in triggered else {}
    ahead, upstream = look(document.chain), by_chain.get(init.chain)
    if ahead is None or upstream is None:
        return {}
    if ahead.goes_back:
        return {}
    if init.once:
        # it begins when its upstream is caught up, and that is for the upstream's own run to find out
        return {} if ahead.begun else None
    if ahead.waits is not None or will_trigger(connection, upstream, ahead.pinned_run, document.dag_id):
        return None
    return {"init_from": ahead.pin} if ahead.pin else {}


def will_trigger(connection: Connection, upstream: str, run_id: str | None, dag_id: str) -> bool:
    """Whether the run that committed the upstream's newest checkpoint is still there to trigger the stage."""
    run = run_queries.find(connection, upstream, run_id) if run_id else None
    if run is None or run.state in RUN_FINISHED:
        return False
    return all(child.dag_id != dag_id for child in run_queries.children(connection, run.id))


def begin_unless_under_way(connection: Connection, dag_id: str, now: datetime) -> None:
    """Queue a run of a DAG that has none which has not ended."""
    lock_dags(connection, [dag_id])
    if not run_queries.unfinished_of(connection, dag_id):
        create_run(connection, dag_id, {}, now)


def create_run(connection: Connection, dag_id: str, conf: dict[str, Any], now: datetime) -> int:
    """Queue a run, as a person's command does; its number in the database."""
    return run_creation.create(
        connection,
        dag_id=dag_id,
        run_id=manual_run_id(now, os.urandom(3).hex()),
        run_type=DagRunType.MANUAL,
        triggered_by=TriggeredBy.CLI,
        conf=conf,
        now=now,
    )


def chains_to_look_at(documents: list[DagDocument], workspace: Workspace) -> Look:
    """Ask the ledgers of the stages that have an upstream now, before anything is written."""
    chains = [each.chain for each in documents if each.chain and each.chain.init_from]
    known = {key_of(chain): _ask(chain, workspace) for chain in chains}
    return lambda chain: known.get(key_of(chain))


def _ask(chain: ChainDocument, workspace: Workspace) -> NextRun | None:
    """None where the settings do not do to reach the store: then the run itself finds out."""
    from trainflow.insight.chains.next_run import next_run_of

    try:
        return next_run_of(chain, _ledger(chain, workspace))
    except TrainflowError:
        return None


def _ledger(chain: ChainDocument, workspace: Workspace) -> Ledger:
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.operators.chain.storage_options import open_chain_store, store_url

    url = store_url(chain.store or None, workspace.settings)
    store = open_chain_store(url, given=None, settings=workspace.settings, root=workspace.project.root)
    return Ledger(store, key_of(chain))


def _triggers(document: DagDocument) -> set[str]:
    """The other DAGs that a DAG triggers."""
    return _triggered_by(document) - {document.dag_id}


def _triggered_by(document: DagDocument) -> set[str]:
    named = {task.template_fields.get("trigger_dag_id") for task in document.tasks}
    return {dag_id for dag_id in named if isinstance(dag_id, str)}


def documents_of(connection: Connection, source: DagSource) -> list[DagDocument]:
    """The DAGs that a file defines, upstreams first."""
    versions = Versions()
    dags = [dag_queries.get(connection, dag_id) for dag_id in dag_queries.of_source(connection, source)]
    documents = [versions.get(connection, dag.version_id)[0] for dag in dags]
    return upstream_first(documents)


def places_of(workspace: Workspace, source: DagSource) -> list[str]:
    """Where the chains of a file have their checkpoints and samples, and what they adopt."""
    with workspace.database.reading() as connection:
        documents = documents_of(connection, source)
    return [place for each in documents if each.chain is not None for place in each.chain.places]
