"""DAG → document."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.param import Param
from trainflow.errors import DagDefinitionError
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.serialization.document import RetryDocument, decode, encode, version_of
from trainflow.serialization.from_dag import to_document
from trainflow.states import TriggerRule

SAMPLES = Samples(path="data/{start:%Y-%m-%d}/", length_seconds=86400, start=datetime(2013, 1, 1, tzinfo=UTC))


class Step(BaseOperator):
    template_fields = ("value",)

    def __init__(self, value=None, facts=None, **kwargs):
        super().__init__(**kwargs)
        self.value = value
        self.facts = facts or {}

    def chain_facts(self):
        return self.facts


class Shielded(Step):
    shielded = True


def full_dag():
    with DAG(
        "full",
        description="what",
        doc_md="# Doc",
        max_active_runs=1,
        max_active_tasks=3,
        dagrun_timeout=timedelta(hours=2),
        fail_fast=True,
        tags=["b", "a", "b"],
        params={"n": Param(3, type="integer", enum=(1, 3)), "s": "x", "required": Param(type="string")},
        is_paused_upon_creation=True,
    ) as dag:
        first = Step(SAMPLES, task_id="first", retries=2, retry_delay=10, retry_exponential_backoff=3)
        Shielded(
            {"rows": [first.output]},
            task_id="last",
            trigger_rule="none_failed",
            max_retry_delay=timedelta(minutes=9),
            pool="gpu",
            pool_slots=2,
            priority_weight=5,
            queue="q",
            depends_on_past=True,
            execution_timeout=60,
            max_active_tis_per_dag=1,
            max_active_tis_per_dagrun=2,
            doc_md="doc",
        )
    return dag


def test_document_holds_everything_and_survives_bytes():
    document = to_document(full_dag(), content="sha256:abc")
    assert decode(encode(document)) == document
    assert document.content == "sha256:abc"
    assert (document.tags, document.dagrun_timeout_seconds, document.fail_fast) == (["a", "b"], 7200.0, True)
    assert document.params["n"] == {"type": "integer", "enum": [1, 3], "default": 3}
    assert document.params["s"] == {"default": "x"}
    assert "default" not in document.params["required"]
    first, last = document.tasks
    assert first.retry == RetryDocument(retries=2, delay_seconds=10.0, multiplier=3.0)
    assert (first.shielded, last.shielded) == (False, True)
    assert last.upstream == ["first"]
    assert last.template_fields == {"value": {"rows": ["{{ ti.xcom_pull(task_ids='first', key='return_value') }}"]}}
    assert (last.pool, last.pool_slots, last.queue, last.depends_on_past) == ("gpu", 2, "q", True)
    assert (last.execution_timeout_seconds, last.retry.max_delay_seconds) == (60.0, 540.0)
    assert (last.max_active_tis_per_dag, last.max_active_tis_per_dagrun, last.doc) == (1, 2, "doc")
    assert last.trigger_rule is TriggerRule.NONE_FAILED
    assert (first.priority_weight, last.priority_weight) == (6, 5)
    assert document.is_paused_upon_creation


def test_tasks_come_after_what_they_wait_for_then_by_id():
    with DAG("d") as dag:
        z, y, x, a = (Step(task_id=name) for name in "zyxa")
        a << z
        x << y
    assert [task.task_id for task in to_document(dag).tasks] == ["y", "x", "z", "a"]


def test_invalid_dag_has_no_document():
    with DAG("d") as dag:
        a, b = Step(task_id="a"), Step(task_id="b")
        a >> b >> a
    with pytest.raises(DagDefinitionError, match="a -> b -> a"):
        to_document(dag)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("downstream", {"a": 6, "b": 5, "c": 3}), ("upstream", {"a": 1, "b": 3, "c": 6}),
     ("absolute", {"a": 1, "b": 2, "c": 3})],
)  # fmt: skip
def test_document_has_effective_weights(rule, expected):
    with DAG("d", default_args={"weight_rule": rule}) as dag:
        a, b, c = (Step(task_id=name, priority_weight=weight) for name, weight in [("a", 1), ("b", 2), ("c", 3)])
        a >> b >> c
        a >> c
    assert {task.task_id: task.priority_weight for task in to_document(dag).tasks} == expected


def test_weights_stay_within_32_bits():
    with DAG("d") as dag:
        Step(task_id="a", priority_weight=2**31 - 1) >> Step(task_id="b", priority_weight=5)
        Step(task_id="c", priority_weight=-(2**40))
    weights = {task.task_id: task.priority_weight for task in to_document(dag).tasks}
    assert weights == {"a": 2**31 - 1, "b": 5, "c": -(2**31)}


class TestChain:
    def document(self, *facts):
        with DAG("d") as dag:
            for index, each in enumerate(facts):
                Step(task_id=f"t{index}", facts=each)
        return to_document(dag).chain

    def test_facts_of_all_tasks_are_put_together(self):
        chain = self.document(
            {"pipeline": "p", "stage": "s", "branch": "b", "store": "st"},
            {"samples": SAMPLES, "limits": SplitLimits(partitions=3), "mode": "latest"},
            {},
        )
        assert (chain.pipeline, chain.stage, chain.branch, chain.store, chain.mode) == ("p", "s", "b", "st", "latest")
        assert (chain.samples, chain.limits) == (SAMPLES, SplitLimits(partitions=3))

    def test_chain_without_pipeline_is_none(self):
        assert self.document({"samples": SAMPLES}) is None
        assert self.document({}) is None

    def test_chain_left_out_values_have_defaults(self):
        chain = self.document({"pipeline": "p", "store": None}, {"pipeline": "p"})
        assert (chain.stage, chain.branch, chain.store, chain.mode) == ("main", "main", "", "backfill")

    def test_chain_with_contradicting_tasks_is_refused(self):
        with pytest.raises(DagDefinitionError, match="'t0' and 't1' name different chains"):
            self.document({"pipeline": "p"}, {"pipeline": "q"})

    def test_fact_must_be_known(self):
        with pytest.raises(DagDefinitionError, match="'pipelin'"):
            self.document({"pipelin": "p"})


PIPELINE = """
import functools
from pathlib import Path
from trainflow import DAG, BaseOperator, TaskGroup, task

def train(x): return x
class Callable:
    def __call__(self): pass
class Step(BaseOperator):
    template_fields = ("value", "other")
    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value
        self.other = {"f": train, "l": lambda: 1, "m": Path.exists, "p": functools.partial(train, 1), "o": object(),
                      "c": Callable(), "s": {"x", "y", "z", "q", "w"}, "t": Step, "path": Path("a/b")}

@task
def decorated(a, b): ...

with DAG("d", tags={"x", "y", "z"}, params={"b": {"z": 1, "a": 2}}) as dag:
    with TaskGroup("g") as group:
        steps = [Step({"e", "d", "f"}, task_id=name) for name in {"one", "two", "three", "four"}]
    end = decorated(dag.get_task("g.one").output, b=train)
    group >> end
"""


def test_document_from_two_processes_and_paths_is_same_bytes(tmp_path):
    versions = set()
    for seed, folder, module in [("1", "here", "pipe"), ("2", "there", "pipe_a8c3"), ("77", "there", "pipe")]:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / f"{module}.py").write_text(PIPELINE)
        code = (
            f"import sys; sys.path.append({str(place)!r}); import {module} as m\n"
            "from trainflow.serialization.from_dag import to_document\n"
            "from trainflow.serialization.document import encode\n"
            "sys.stdout.buffer.write(encode(to_document(m.dag)))"
        )
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        data = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
        assert b" at 0x" not in data
        assert str(tmp_path).encode() not in data
        versions.add(version_of(data))
    assert len(versions) == 1


def test_long_chain_needs_neither_deep_recursion_nor_much_time():
    with DAG("d") as dag:
        tasks = [Step(task_id=f"t{number}") for number in range(3000)]
        for before, after in pairwise(tasks):
            before >> after
    first, *_, last = to_document(dag).tasks
    assert (first.task_id, first.priority_weight) == ("t0", 3000)
    assert (last.task_id, last.priority_weight) == ("t2999", 1)


def test_version_is_digest_of_bytes():
    data = encode(to_document(full_dag()))
    assert version_of(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"
