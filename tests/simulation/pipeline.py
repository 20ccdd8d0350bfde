"""The pipelines that are simulated: compiled like every other, by the product."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from tests.simulation.expected import Expected, UpstreamRule
from tests.simulation.plan import Scenario, Shape
from tests.simulation.table import LENGTH, START, TABLE
from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.checkpoints.chain import ChainKey
from trainflow.execution.dag_files import DagFiles, LoadedFile
from trainflow.messages.workload import DagSource
from trainflow.operators.data_checker import DataCheckerOperator
from trainflow.operators.trigger_dagrun import TriggerDagRunOperator
from trainflow.serialization.document import DagDocument, encode

NAME = "simulated"
SOURCE = DagSource("pipelines/simulated.yaml")
STORE = "s3://simulated"
RETRIES = 2
#: partitions that the lagging stage is behind
LAG = 1
#: what gates demand
LEAST_QUALITY = 0.5
MAX_ACTIVE_RUNS = 1
#: the branch that a person forks, and the override that it has
BRANCH = "other"
_LIMIT = "split.partitions"
_FUNCTIONS = "tests.simulation.training"


@dataclass
class Pipeline:
    """What a pipeline file gives."""

    dags: dict[str, DAG]
    documents: dict[str, DagDocument]
    #: of the DAGs of a branch
    sources: dict[str, DagSource] = field(default_factory=dict)

    @cached_property
    def encoded(self) -> dict[str, bytes]:
        """DAG → its document as it is stored."""
        return {dag_id: encode(document) for dag_id, document in self.documents.items()}

    @cached_property
    def chains(self) -> dict[str, ChainKey]:
        """DAG → the chain it trains, in the order of the stages."""
        facts = {dag_id: document.chain for dag_id, document in self.documents.items()}
        return {dag_id: ChainKey(chain.pipeline, chain.stage, chain.branch) for dag_id, chain in facts.items() if chain}

    def triggering(self, dag_id: str) -> list[TriggerDagRunOperator]:
        """The tasks of a DAG that trigger runs."""
        return [task for task in self.dags[dag_id].tasks if isinstance(task, TriggerDagRunOperator)]

    @cached_property
    def goals(self) -> dict[ChainKey, datetime]:
        """Where each chain comes to its end."""
        samples = {key: self.checker(dag_id).samples for dag_id, key in self.chains.items()}
        return {key: each.end - each.lag * LENGTH for key, each in samples.items() if each.end is not None}

    @property
    def has_branch(self) -> bool:
        """Whether a branch was forked."""
        return any(key.branch == BRANCH for key in self.chains.values())

    def source_of(self, dag_id: str) -> DagSource:
        """The file, with what it was read with for this DAG."""
        return self.sources.get(dag_id, SOURCE)

    @property
    def roots(self) -> list[str]:
        """The DAGs that begin by themselves."""
        documents = self.documents.items()
        return [dag_id for dag_id, each in documents if each.chain and not each.chain.init_from] or list(self.dags)[:1]

    def expected(self, scenario: Scenario) -> dict[ChainKey, Expected]:
        """What is expected of each chain."""
        # of what was there from the beginning, nothing is missing; what is old or bad may be stepped over
        steps_over = scenario.newer_than is not None or scenario.gate is not None
        return {
            key: Expected(
                least_quality=LEAST_QUALITY if scenario.gate else None,
                base=_base_rule(scenario, key),
                follows=self._base_of(key),
                no_holes=frozenset(() if steps_over else {*scenario.present} - {*scenario.empty}),
                replays=scenario.republished == "replay",
                limit=self._limit_of(key),
            )
            for key in self.chains.values()
        }

    def _limit_of(self, key: ChainKey) -> int:
        dag_id = next(dag_id for dag_id, each in self.chains.items() if each == key)
        limits = self.checker(dag_id).limits
        assert limits is not None
        assert limits.partitions is not None
        return limits.partitions

    def _base_of(self, key: ChainKey) -> str:
        facts = next(each.chain for dag_id, each in self.documents.items() if self.chains.get(dag_id) == key)
        return facts.init_from.chain.artifacts if facts and facts.init_from else ""

    def checker(self, dag_id: str) -> DataCheckerOperator:
        """What decides the splits of a DAG."""
        operator = self.dags[dag_id].get_task("samples")
        assert isinstance(operator, DataCheckerOperator)
        return operator


def _base_rule(scenario: Scenario, key: ChainKey) -> UpstreamRule | None:
    """What a branch goes on from may have been committed to the branch or be what it was forked from."""
    rule = _BASES.get(scenario.shape, {}).get(key.stage)
    exact = key.branch != BRANCH or rule in (None, UpstreamRule.FIRST_ONLY)
    return rule if exact else UpstreamRule.ANY_OR_NONE


def pipeline_of(scenario: Scenario, begin: datetime = START, *, branch: Mapping[str, str] | None = None) -> Pipeline:
    """The pipeline of a scenario, whose samples start at `begin`; and its branch, read with these overrides."""
    own = _compiled(json.dumps(_written(scenario, begin), default=str))
    if branch is None:
        return own
    forked = branch_of(scenario, begin, branch)
    sources = dict.fromkeys(forked.dags, DagSource(SOURCE.path, dict(branch)))
    return Pipeline({**own.dags, **forked.dags}, {**own.documents, **forked.documents}, sources)


def overrides_of(scenario: Scenario) -> dict[str, str]:
    """What a branch does otherwise."""
    return {_LIMIT: str(scenario.branch_limit)}


def branch_of(scenario: Scenario, begin: datetime, overrides: Mapping[str, str]) -> Pipeline:
    """The DAGs that the file gives when it is read with these overrides."""
    written = _written(scenario, begin)
    if (name := overrides.get("branch")) is not None:
        written["branch"] = name
    if (limit := overrides.get(_LIMIT)) is not None:
        for stage in written["stages"].values():
            stage["split"] = {"partitions": int(limit)}
    return _compiled(json.dumps(written, default=str))


def _written(scenario: Scenario, begin: datetime) -> dict[str, Any]:
    """As a file says it, with everything that stages inherit."""
    plain = _stage(scenario, begin)
    stages = {name: {**plain, **({"init_from": init} if init else {})} for name, init in _SHAPES[scenario.shape]}
    if scenario.later_limit is not None:
        for name in list(stages)[1:]:
            stages[name]["split"] = {"partitions": scenario.later_limit}
    if scenario.shape is Shape.LAGGED:
        stages["tune"]["samples"] = {**stages["tune"]["samples"], "lag": LAG}
    return {"pipeline": NAME, "stages": stages}


def _stage(scenario: Scenario, begin: datetime) -> dict[str, Any]:
    return {
        "mode": scenario.mode,
        "store": STORE,
        "retries": RETRIES,
        "retry_delay": "5s",
        "samples": {
            "path": f"{TABLE}/{{start:%Y-%m-%dT%H}}",
            "length": "1h",
            "start": begin.isoformat(),
            "end": (START + scenario.partitions * LENGTH).isoformat(),
            "files": "*.bin",
            "gaps": {"wait": f"{scenario.gap_seconds}s", "then": "skip"},
            "republished": scenario.republished,
            # about as long as a gap is waited for
            "ready": {"unfinished": "20s"},
            # longer than any clock is set by, and shorter than that of a worker is wrong
            "wait_timeout": "90d",
            "catch_up": {"newer_than": f"{scenario.newer_than}h"} if scenario.newer_than else "all",
        },
        "split": {"partitions": scenario.limit},
        "params": {"saves": scenario.saves, "bad": list(scenario.bad)},
        **(
            {"gates": [{"require": f"quality >= {LEAST_QUALITY}", "otherwise": scenario.gate}]} if scenario.gate else {}
        ),
        **({"promote": [{"alias": "champion", "when": []}]} if scenario.shape is Shape.PROMOTED else {}),
        **({"retention": {"keep_latest": scenario.keep}} if scenario.keep else {}),
        "train": {"function": f"{_FUNCTIONS}:train"},
        **({"evaluate": {"function": f"{_FUNCTIONS}:evaluate"}} if scenario.evaluates else {}),
    }


#: how the base of each stage is chosen, as `ledger_check` looks at it
_BASES: dict[Shape, dict[str, UpstreamRule]] = {
    Shape.ONCE: {"tune": UpstreamRule.FIRST_ONLY},
    Shape.DAILY: {"tune": UpstreamRule.REACHES_END},
    Shape.FAN: {"east": UpstreamRule.REACHES_END, "west": UpstreamRule.REACHES_END},
    Shape.FEEDBACK: {"first": UpstreamRule.AT_BEGINNING, "second": UpstreamRule.REACHES_END},
    Shape.CIRCLE: {
        "first": UpstreamRule.AT_BEGINNING,
        "second": UpstreamRule.REACHES_END,
        "third": UpstreamRule.REACHES_END,
    },
    Shape.LAGGED: {"tune": UpstreamRule.ANY},
    Shape.PROMOTED: {"tune": UpstreamRule.PROMOTED},
}
#: the stages, and what each starts from
_SHAPES: dict[Shape, list[tuple[str, dict[str, Any] | None]]] = {
    Shape.ALONE: [("main", None)],
    Shape.ONCE: [("base", None), ("tune", {"stage": "base", "once": True})],
    Shape.DAILY: [("base", None), ("tune", {"stage": "base"})],
    Shape.FAN: [("base", None), ("east", {"stage": "base"}), ("west", {"stage": "base"})],
    Shape.FEEDBACK: [("first", {"stage": "second"}), ("second", {"stage": "first"})],
    Shape.CIRCLE: [
        ("first", {"stage": "third"}),
        ("second", {"stage": "first"}),
        ("third", {"stage": "second"}),
    ],
    Shape.LAGGED: [("base", None), ("tune", {"stage": "base", "at": "latest"})],
    Shape.PROMOTED: [("base", None), ("tune", {"stage": "base", "at": "promoted"})],
}


@lru_cache(maxsize=4096)
def _compiled(written: str) -> Pipeline:
    from trainflow.pipeline_spec.compile import compile_pipeline
    from trainflow.pipeline_spec.model import PipelineSpec
    from trainflow.serialization.from_dag import to_document

    dags = compile_pipeline(PipelineSpec.model_validate(json.loads(written)))
    return Pipeline({dag.dag_id: dag for dag in dags}, {dag.dag_id: to_document(dag) for dag in dags})


class SimulatedFiles(DagFiles):
    """What a process has loaded. Each task is a copy: a process changes its own, and no other's."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._dags = {dag_id: _Copies(dag) for dag_id, dag in pipeline.dags.items()}

    def get(self, source: DagSource) -> LoadedFile:
        return LoadedFile(self._dags, "")  # type: ignore[arg-type]  # of a DAG, a process wants its tasks


class _Copies:
    def __init__(self, dag: DAG) -> None:
        self._dag = dag
        self.dag_id = dag.dag_id

    def has_task(self, task_id: str) -> bool:
        return self._dag.has_task(task_id)

    def get_task(self, task_id: str) -> BaseOperator:
        return copy.copy(self._dag.get_task(task_id))
