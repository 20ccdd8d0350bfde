"""Whether chains have come to their end: what is still to be trained, by the table and the ledgers."""

from __future__ import annotations

from datetime import datetime

from tests.simulation.pipeline import Pipeline
from tests.simulation.shared_world import SharedWorld
from tests.simulation.table import START, tiles
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.rules import change_of
from trainflow.samples.grid import grid_of


class ChainEnds:
    """Knows the table and the ledgers of all chains."""

    def __init__(self, shared: SharedWorld) -> None:
        self._shared = shared
        self._table, self._ledger = shared.table, shared.ledger

    def has_other_samples(self, pipeline: Pipeline) -> bool:
        """The samples are not those that a chain was trained on, and no person has said what that means."""
        if self._table.begin == START:
            return False
        samples = {key: pipeline.checker(dag_id).samples for dag_id, key in pipeline.chains.items()}
        return any(change_of(Ledger(self._shared.store, key).state(), grid_of(each)) for key, each in samples.items())

    def is_trained(self, pipeline: Pipeline) -> bool:
        """Every chain has come to the end of the table, and none stands on what its base has undone. Where files are
        pruned, it may have to."""
        keys = pipeline.goals
        if self._shared.scenario.keep is None and any(self._ledger.stands_on_undone(key) for key in keys):
            return False
        return all(
            self._is_at(key, goal) or self._goes_no_further(pipeline, key) for key, goal in pipeline.goals.items()
        )

    def _is_at(self, key: ChainKey, goal: datetime) -> bool:
        """Whether no row is left up to there: what has none is trained on with what comes after it."""
        edge = self._ledger.chains[key].edge
        return edge == goal or not any(self._table.has_rows(number) for number in tiles(edge or START, goal))

    def _goes_no_further(self, pipeline: Pipeline, key: ChainKey, asked: frozenset[ChainKey] = frozenset()) -> bool:
        """Whether a chain has passed its base, which has stepped over the rest or goes no further itself."""
        if key in asked:
            return False
        chain = self._ledger.chains[key]
        for document in pipeline.documents.values():
            facts = document.chain
            if facts and facts.init_from and ChainKey(facts.pipeline, facts.stage, facts.branch) == key:
                base = self._ledger.chains[facts.init_from.chain]
                left = tiles(chain.edge or START, base.watermark) if base.watermark is not None else ()
                # what the base was trained on may have been taken away
                behind = not any(self._table.has_rows(number) for number in left)
                ends = self._is_at(facts.init_from.chain, self._table.end)
                return behind and (ends or self._goes_no_further(pipeline, facts.init_from.chain, asked | {key}))
        return False
