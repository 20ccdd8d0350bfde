"""A file with stages: what they take from each other, and what is wrong with how they start from each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.authoring.xcom_arg import XComArg
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.stages.init_from import InitFrom
from trainflow.errors import PipelineFileError
from trainflow.execution import dag_files
from trainflow.messages.workload import DagSource
from trainflow.pipeline_spec.load import load_pipeline_file, load_spec
from trainflow.pipeline_spec.model import PipelineSpec
from trainflow.serialization.document import DagDocument
from trainflow.serialization.from_dag import to_document
from trainflow.settings.project import project_at

#: nine lines
SHARED = """\
pipeline: m
samples:
  path: "d/{start:%Y-%m-%d}/"
  length: 1d
  start: 2013-01-01
  end: 2014-01-01
train: {function: "json:loads", retries: 5}
params: {a: 1, b: {c: 2, d: 3}}
evaluate: {function: "json:dumps"}
"""

Stages = Callable[..., PipelineSpec]


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    def load(text: str, shared: str = SHARED, **overrides: str) -> PipelineSpec:
        path = tmp_path / "p.yaml"
        path.write_text(f"{shared}stages:\n{text}")
        named = {key.replace("__", "."): value for key, value in overrides.items()}
        return load_spec(path, named, project_at(tmp_path))

    return load


@pytest.fixture
def dags(tmp_path: Path) -> Callable[[str], dict[str, DAG]]:
    def load(text: str) -> dict[str, DAG]:
        path = tmp_path / "p.yaml"
        path.write_text(f"{SHARED}stages:\n{text}")
        return {dag.dag_id: dag for dag in load_pipeline_file(path, {}, project_at(tmp_path)).dags}

    return load


def test_stage_takes_what_it_does_not_say_from_file(stages: Stages) -> None:
    spec = stages(
        "  base:\n"
        "  fine:\n"
        "    init_from: {stage: base}\n"
        "    samples: {lag: 2, start: 2013-06-01}\n"
        "    params: {b: {c: 9}}\n"
        "    train: {command: [x]}\n"
        "    evaluate:\n"
    )
    base, fine = spec.stages["base"], spec.stages["fine"]
    assert (base.samples.lag, base.params, base.train.function) == (0, {"a": 1, "b": {"c": 2, "d": 3}}, "json:loads")
    assert (fine.samples.lag, fine.samples.path, fine.samples.start.month) == (2, base.samples.path, 6)
    assert fine.params == {"a": 1, "b": {"c": 9, "d": 3}}
    assert (fine.train.command, fine.train.function, fine.train.retries) == (["x"], None, 5)
    assert base.evaluate is not None
    assert fine.evaluate is None


def test_parameters_of_stage_lie_on_those_of_file(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("a: 7\nx: 7\n")
    (tmp_path / "fine.yaml").write_text("x: 8\ny: 8\n")
    spec = stages("  base:\n  fine: {config: fine.yaml, params: {y: 9}}\n", SHARED + "config: all.yaml\n")
    assert spec.stages["base"].params == {"a": 1, "x": 7, "b": {"c": 2, "d": 3}}
    assert spec.stages["fine"].params == {"a": 1, "x": 8, "y": 9, "b": {"c": 2, "d": 3}}
    loaded = load_pipeline_file(tmp_path / "p.yaml", {}, project_at(tmp_path))
    assert {path.name for path in loaded.files} == {"all.yaml", "fine.yaml"}


def test_start_may_override_one_stage(stages: Stages) -> None:
    spec = stages("  base:\n  fine:\n", stages__fine__split__partitions="3", retries="1")
    assert [stage.split.partitions for stage in spec.stages.values()] == [None, 3]
    assert [stage.retries for stage in spec.stages.values()] == [1, 1]


def triggers(dag: DAG) -> dict[str, str]:
    return {task.task_id: task.trigger_dag_id for task in dag.tasks if hasattr(task, "trigger_dag_id")}


def test_stages_dag_triggers_its_dependents(dags: Callable[[str], dict[str, DAG]]) -> None:
    found = dags(
        "  base:\n"
        "  fine: {init_from: {stage: base}}\n"
        "  finer: {init_from: {stage: fine, at: latest}}\n"
        "  once: {init_from: {stage: base, once: true}}\n"
    )
    assert {dag_id: triggers(dag) for dag_id, dag in found.items()} == {
        "m.base": {"next": "m.base", "next_fine": "m.fine", "next_once": "m.once"},
        "m.fine": {"next": "m.fine", "next_finer": "m.finer"},
        "m.finer": {"next": "m.finer"},
        "m.once": {"next": "m.once"},
    }
    edges = {task.task_id: task.upstream for task in to_document(found["m.base"]).tasks}
    assert (edges["next"], edges["next_fine"], edges["next_once"]) == (["commit"], ["commit"], ["samples"])
    assert edges["commit"] == ["checkpoint", "evaluate", "samples", "train"]


def test_stage_is_told_from_which_checkpoint(dags: Callable[[str], dict[str, DAG]]) -> None:
    found = dags("  base:\n  fine: {init_from: {stage: base}}\n  once: {init_from: {stage: base, once: true}}\n")
    base: Any = found["m.base"]
    told = base.get_task("next_fine").conf["init_from"]
    assert isinstance(told, XComArg)
    assert (told.operator.task_id, told.key) == ("commit", "return_value")
    begun = base.get_task("next_once")
    assert begun.trigger_rule == "all_skipped"
    assert (begun.when.operator.task_id, begun.when.key) == ("samples", "trained")
    again: Any = found["m.fine"].get_task("next")
    assert (again.when.operator.task_id, again.when.key) == ("commit", "more")
    assert (again.conf["init_from"].operator.task_id, again.conf["init_from"].key) == ("checkpoint", "pin")
    plain: Any = found["m.once"].get_task("next")
    assert (plain.conf, plain.when) == (None, True)


CIRCLE = "  a: {init_from: {stage: d}}\n  b: {init_from: {stage: a}}\n  c: {init_from: {stage: b}}\n"


@pytest.mark.parametrize(
    ("last", "through", "skipped"),
    [
        # who is in between has nothing to do: what a stage steps over, the first one is told
        ("  d: {init_from: {stage: c}}\n", ["c", "b"], {"b": "a", "c": "a", "d": None}),
        # the newest of c is there all the same
        ("  d: {init_from: {stage: c, at: latest}}\n", [], {"b": "d", "c": "d", "d": None}),
    ],
)
def test_stages_circle_passes_skipped_partitions_on(
    dags: Callable[[str], dict[str, DAG]], last: str, through: list[str], skipped: dict[str, str | None]
) -> None:
    found = dags(CIRCLE + last)
    init = document(found["m.a"]).chain.init_from  # type: ignore[union-attr]
    assert init is not None
    assert [key.stage for key in init.through] == through
    told = {
        name: next((key.removeprefix("skipped_") for key in triggers(found[f"m.{name}"]) if "skipped_" in key), None)
        for name in skipped
    }
    assert told == skipped
    circle = [found[f"m.{name}"].get_task("samples").in_circle for name in "abcd"]  # type: ignore[attr-defined]
    assert circle == [False, True, True, bool(through)]


def document(dag: DAG) -> DagDocument:
    return to_document(dag)


def test_stages_init_from_is_in_document(dags: Callable[[str], dict[str, DAG]]) -> None:
    found = dags(
        "  day: {init_from: {stage: fine}}\n"
        "  fine: {init_from: {stage: day}}\n"
        "  other: {init_from: other/main/main@c1}\n"
    )
    inits = {dag_id: document(dag).chain.init_from for dag_id, dag in found.items()}  # type: ignore[union-attr]
    assert inits == {
        "m.day": InitFrom(ChainKey("m", "fine"), "same_watermark", feedback=True),
        "m.fine": InitFrom(ChainKey("m", "day"), "same_watermark"),
        "m.other": InitFrom(ChainKey("other"), once=True, checkpoint_id="c1"),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "  base:\n  fine: {init_from: {stage: bse}}\n",
            "12:29: stages.fine.init_from.stage: there is no stage 'bse'; did you mean 'base'?; stages: base, fine",
        ),
        ("  fine: {init_from: {stage: fine}}\n", "11:29: stages.fine.init_from.stage: a stage cannot start from"),
        (
            "  base: {mode: latest, samples: {end: }}\n  fine: {init_from: {stage: base, once: true}}\n",
            "12:29: stages.fine.init_from.stage: never begins: 'once' waits until stage 'base' is caught up, and that",
        ),
        (
            "  a:\n  b: {init_from: {stage: a}}\n  c: {init_from: {stage: b, once: true}}\n",
            "13:26: stages.c.init_from.stage: never begins: 'once' waits until stage 'b' is caught up, and that",
        ),
        (
            "  a: {init_from: {stage: b, once: true}}\n  b: {init_from: {stage: a}}\n",
            "11:26: stages.a.init_from.stage: stage 'b' starts from this one again: 'once' begins when its upstream is",
        ),
        (
            "  a: {init_from: {stage: b, at: promoted}}\n  b: {init_from: {stage: a}}\n",
            "11:26: stages.a.init_from.stage: stage 'b' starts from this one again, so neither could begin",
        ),
        (
            "  a:\n  b: {init_from: {stage: a, once: true, at: same_watermark}}\n",
            "12:18: stages.b.init_from: 'once' starts from the newest checkpoint: at is latest or promoted",
        ),
        ("  a:\n  b: {init_from: a}\n", "12:18: stages.b.init_from: 'a' names a pipeline: for the stage write"),
        ("  a: {init_from: {}}\n", "11:18: stages.a.init_from: "),
        ("  a: {init_from: {stage: b, at: newest}}\n  b:\n", "11:33: stages.a.init_from.at: expected same_wat"),
        ("  a: {init_from: {stag: b}}\n  b:\n", "11:19: unknown key 'stag' in section 'stages.a.init_from'; did you"),
        ("  a: {trian: {}}\n", "11:7: unknown key 'trian' in section 'stages.a'; did you mean 'train'?; allowed: desc"),
        ("  a: {samples: {length: 1}}\n", "11:25: stages.a.samples.length: 1 is not a length"),
        ("  a: 3\n", "11:6: stages.a: expected a section of keys; got 3 (a number)"),
        ("  a/b:\n", "11:7: stages.a/b: 'a/b' cannot name"),
        ("  {}\n", "11:3: stages: expected a section with a key for each stage; got {} (a section)"),
        (
            "  b: {mode: latest, init_from: {pipeline: other, stage: base}}\n",
            "11:57: stages.b.init_from.stage: with mode: latest nothing tells this stage what another pipeline commits",
        ),
        (
            "  a: {init_from: {stage: b}}\n  b: {init_from: {stage: a}, samples: {start: 2013-01-02}}\n",
            "12:47: stages.b.samples.start: after the start of stage 'a': nothing here would be trained up to there",
        ),
        (
            "  a: {init_from: {stage: b}, samples: {length: 6h, path: '{start:%Y-%m-%dT%H}'}}\n"
            "  b: {init_from: {stage: a}}\n",
            "4:11: samples.length: a partition of stage 'a' may end inside one of stage 'b', and stage 'a', which",
        ),
    ],
)
def test_stages_contradiction_is_refused(stages: Stages, text: str, told: str) -> None:
    with pytest.raises(PipelineFileError) as caught:
        stages(text)
    first, *_ = str(caught.value).splitlines()
    assert first.startswith(f"p.yaml:{told}")


def test_stages_problem_in_common_part_is_told_once(stages: Stages) -> None:
    with pytest.raises(PipelineFileError) as caught:
        stages("  a:\n  b:\n", SHARED.replace("length: 1d", "length: 1"))
    (told,) = str(caught.value).splitlines()
    assert told.startswith("p.yaml:4:11: samples.length: 1 is not a length")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("stage: x", "p.yaml:10:1: 'stage' belongs to one stage: with 'stages', each is named by its key"),
        ("init_from: a/b", "p.yaml:10:1: 'init_from' belongs to one stage: write it into that stage"),
    ],
)
def test_stages_own_keys_belong_to_one_stage(stages: Stages, line: str, told: str) -> None:
    with pytest.raises(PipelineFileError) as caught:
        stages("  a:\n", f"{SHARED}{line}\n")
    assert str(caught.value).startswith(told)


def test_stage_that_lacks_key_says_which(stages: Stages) -> None:
    with pytest.raises(PipelineFileError, match=r"p\.yaml:3:3: section 'stages\.a' lacks the key 'samples'"):
        stages("  a: {train: {function: 'json:loads'}}\n", "pipeline: m\n")


# -- nothing the YAML can do is closed to Python -------------------------------------------------------------------

IN_PYTHON = """\
from datetime import UTC, datetime, timedelta

from trainflow import DAG
from trainflow.operators import *

DAYS = Samples(
    path="d/{start:%Y-%m-%d}/", length_seconds=86_400,
    start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2014, 1, 1, tzinfo=UTC),
)
OPTIONS = {"max_active_runs": 1, "default_args": {"retries": 2, "retry_delay": timedelta(seconds=10)}}


def chain(stage, init_from=None):
    head = CheckpointOperator(pipeline="m", stage=stage, init_from=init_from).output
    split = DataCheckerOperator(samples=DAYS, checkpoint=head, in_circle=stage == "forth").output
    trained = TrainOperator(function="json:loads", checkpoint=head, split=split).output
    return head, split, CommitCheckpointOperator(checkpoint=head, split=split, trained=trained).output


def again(stage, head, committed):
    TriggerDagRunOperator(
        task_id="next", trigger_dag_id=f"m.{stage}", conf={"init_from": head["pin"]}, when=committed["more"],
        carry_conf=("repair", "skipped"),
    )


def tell(stage, told):
    TriggerDagRunOperator(task_id=f"next_{stage}", trigger_dag_id=f"m.{stage}", conf={"init_from": told}, when=told)


with DAG("m.base", **OPTIONS):
    head, split, committed = chain("base")
    committed >> TriggerDagRunOperator(task_id="next", trigger_dag_id="m.base", carry_conf=("repair", "skipped"))
    for stage in ("day", "newest"):
        tell(stage, committed)
    TriggerDagRunOperator(
        task_id="next_once", trigger_dag_id="m.once", conf={"init_from": split["trained"]}, when=split["trained"],
        trigger_rule="all_skipped",
    )

for stage, init_from in {
    "day": {"stage": "base"},
    "newest": {"stage": "base", "at": "latest"},
    "back": {"stage": "forth", "feedback": True},
    "forth": {"stage": "back"},
}.items():
    with DAG(f"m.{stage}", **OPTIONS):
        head, split, committed = chain(stage, init_from)
        again(stage, head, committed)
        other = {"back": "forth", "forth": "back"}.get(stage)
        if other:
            tell(other, committed["passed"] if other == "back" else committed)
        if stage == "forth":
            TriggerDagRunOperator(
                task_id="stepped_over_back", trigger_dag_id="m.back", when=split["stepped_over"],
                trigger_rule="all_skipped",
            )

with DAG("m.once", **OPTIONS):
    head, split, committed = chain("once", {"stage": "base", "once": True})
    committed >> TriggerDagRunOperator(task_id="next", trigger_dag_id="m.once", carry_conf=("repair", "skipped"))
"""
IN_YAML = """\
pipeline: m
samples: {path: "d/{start:%Y-%m-%d}/", length: 1d, start: 2013-01-01, end: 2014-01-01}
train: {function: "json:loads"}
stages:
  base:
  day: {init_from: {stage: base}}
  newest: {init_from: {stage: base, at: latest}}
  back: {init_from: {stage: forth}}
  forth: {init_from: {stage: back}}
  once: {init_from: {stage: base, once: true}}
"""


def test_stages_written_in_python_are_same_dags(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(IN_YAML)
    (tmp_path / "p.py").write_text(IN_PYTHON)
    yaml, python = (dag_files.load(DagSource(f"p.{suffix}"), project_at(tmp_path)).dags for suffix in ("yaml", "py"))
    assert yaml.keys() == python.keys()
    for dag_id in yaml:
        assert to_document(yaml[dag_id]) == to_document(python[dag_id])
