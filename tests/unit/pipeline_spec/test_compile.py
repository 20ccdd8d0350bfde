from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.checkpoints.ledger_changes.promote import Promote
from trainflow.checkpoints.stages.init_from import InitFrom
from trainflow.checkpoints.upkeep.retention import KeepBest, KeepDaily, KeepEvery, KeepLatest, KeepWeekly
from trainflow.errors import PipelineFileError
from trainflow.execution import dag_files
from trainflow.messages.workload import DagSource
from trainflow.pipeline_spec.load import load_pipeline_file
from trainflow.samples.spec import Checks, GapPolicy, Ready, Republished, Samples, SplitLimits
from trainflow.serialization.document import DagDocument, encode
from trainflow.serialization.from_dag import to_document
from trainflow.settings.project import project_at

ROOT = Path(__file__).parents[3]

FULL = """\
pipeline: full
description: everything that can be said
tags: [b, a]
stage: fine
branch: try
mode: latest
store: {url: "s3://bucket/models", storage_options: {key: k, secret: hush}}
params: {alpha: 0.1, layers: [3, 4]}
adopt: {path: "s3://old/{watermark:%Y%m%d}/", watermark: 2013-02-01, offset: 1d, ready: {marker: DONE}, files: "*.pt"}
retries: 4
retry_delay: 1m
prepare: {function: "json:loads", timeout: 5m}
samples:
  path: "s3://bucket/t/date={start:%Y-%m-%d}/hour={start:%H}/"
  length: 1h
  start: 2013-01-01T06:00:00Z
  end: 2014-01-01
  files: "*.pq"
  ready: {marker: done, min_files: 2, min_rows: 3, min_bytes: 4kB, stable: 5m}
  checks: {min_rows: 1, max_rows: 9, columns: {a: int64, b: }, nulls: {a: 0.5}, ranges: {a: [0, null]}}
  gaps: {wait: 6h, then: skip}
  catch_up: {newer_than: 3d}
  republished: {policy: replay, window: 30d}
  storage_options: {anon: true}
  poke_interval: 5s
  wait_timeout: 2d
  retries: 9
split: {partitions: 14, rows: 1000, bytes: 2GiB, target: 45m}
evaluate: {function: "json:loads", queue: gpu}
train: {command: [python, train.py], retries: 0, retry_delay: 0s, timeout: 2h, pool: gpus}
gates:
  - "auc >= 0.6"
  - loss is finite
  - {require: auc >= 0.98 * previous, otherwise: skip}
  - require: loss < 9
    otherwise: rewind 2
promote:
  - {alias: champion, when: [auc >= 0.65, loss < 1]}
  - {alias: newest}
commit: {retries: 7}
retention:
  {keep_latest: 5, keep_every: 10, keep_daily: 7, keep_weekly: 4, keep_best: {metric: loss, mode: min, count: 2}}
"""

MINIMAL = """\
pipeline: tiny
samples: {path: "d/{start:%Y-%m-%d}/", length: 1d, start: 2013-01-01}
train: {function: "json:loads"}
"""


def compiled(folder: Path, text: str, **overrides: str) -> DAG:
    path = folder / "p.yaml"
    path.write_text(text)
    (dag,) = load_pipeline_file(path, overrides, project_at(folder)).dags
    return dag


def edges(document: DagDocument) -> dict[str, list[str]]:
    return {task.task_id: task.upstream for task in document.tasks}


def test_minimal_pipeline_is_five_tasks_in_line(tmp_path: Path) -> None:
    dag = compiled(tmp_path, MINIMAL)
    assert [task.task_id for task in dag.topological_sort()] == ["checkpoint", "samples", "train", "commit", "next"]
    assert (dag.dag_id, dag.max_active_runs) == ("tiny", 1)
    following: Any = dag.get_task("next")
    assert (following.trigger_dag_id, following.upstream_task_ids) == ("tiny", {"commit"})
    train: Any = dag.get_task("train")
    assert (train.retries, train.retry_delay, train.execution_timeout) == (2, timedelta(seconds=10), None)
    samples: Any = dag.get_task("samples")
    assert (samples.mode, samples.limits, samples.samples.ready) == ("backfill", SplitLimits(), Ready())


def test_compile_every_key_reaches_its_operator(tmp_path: Path) -> None:
    dag = compiled(tmp_path, FULL)
    tasks: dict[str, Any] = {task.task_id: task for task in dag.tasks}
    assert list(edges(to_document(dag))) == ["prepare", "checkpoint", "samples", "evaluate", "train", "commit", "next"]
    assert (dag.description, dag.tags, dag.resolve_params()) == (
        "everything that can be said",
        ["a", "b"],
        {"alpha": 0.1, "layers": [3, 4]},
    )
    assert (tasks["prepare"].python_callable, tasks["prepare"].execution_timeout) == (
        "json:loads",
        timedelta(minutes=5),
    )
    head = tasks["checkpoint"]
    assert (head.pipeline, head.stage, head.branch, head.store) == ("full", "fine", "try", "s3://bucket/models")
    assert head.storage_options == {"key": "k", "secret": "hush"}
    assert head.adopt == Adopt(
        "s3://old/{watermark:%Y%m%d}/", datetime(2013, 2, 1, tzinfo=UTC), 86_400, Ready(marker="DONE"), "*.pt"
    )
    samples = tasks["samples"]
    assert samples.samples == Samples(
        path="s3://bucket/t/date={start:%Y-%m-%d}/hour={start:%H}/",
        length_seconds=3600,
        start=datetime(2013, 1, 1, 6, tzinfo=UTC),
        end=datetime(2014, 1, 1, tzinfo=UTC),
        files="*.pq",
        ready=Ready(marker="done", min_files=2, min_rows=3, min_bytes=4000, stable_seconds=300),
        checks=Checks(
            min_rows=1, max_rows=9, columns={"a": "int64", "b": None}, nulls={"a": 0.5}, ranges={"a": (0, None)}
        ),
        gaps=GapPolicy(wait_seconds=21_600, then="skip"),
        catch_up_seconds=3 * 86_400,
        republished=Republished("replay", 30 * 86_400),
        storage_options={"anon": True},
    )
    assert samples.limits == SplitLimits(partitions=14, rows=1000, bytes=2 * 2**30, target_seconds=2700)
    assert (samples.mode, samples.poke_interval, samples.timeout) == ("latest", 5.0, timedelta(days=2))
    assert (tasks["evaluate"].function, tasks["evaluate"].queue) == ("json:loads", "gpu")
    assert (tasks["train"].command, tasks["train"].function) == (["python", "train.py"], None)
    assert [(gate.require, gate.otherwise) for gate in tasks["commit"].gates] == [
        ("auc >= 0.6", "stop"),
        ("loss is finite", "stop"),
        ("auc >= 0.98 * previous", "skip"),
        ("loss < 9", "rewind 2"),
    ]
    assert tasks["commit"].promote == (Promote("champion", ("auc >= 0.65", "loss < 1")), Promote("newest"))
    assert tasks["commit"].retention == (
        KeepLatest(5),
        KeepEvery(10),
        KeepDaily(7),
        KeepWeekly(4),
        KeepBest("loss", "min", 2),
    )


def test_retries_are_sections_or_else_pipelines(tmp_path: Path) -> None:
    tasks = {task.task_id: task for task in compiled(tmp_path, FULL).tasks}
    assert {name: task.retries for name, task in tasks.items()} == {
        "checkpoint": 4,
        "prepare": 4,
        "samples": 9,
        "evaluate": 4,
        "train": 0,
        "commit": 7,
        "next": 4,
    }
    assert tasks["train"].retry_delay == timedelta(0)
    assert tasks["samples"].retry_delay == timedelta(minutes=1)
    assert (tasks["train"].pool, tasks["train"].execution_timeout) == ("gpus", timedelta(hours=2))


def test_secrets_of_store_are_not_in_document(tmp_path: Path) -> None:
    assert b"hush" not in encode(to_document(compiled(tmp_path, FULL)))


@pytest.mark.parametrize(
    ("stage", "branch", "dag_id"),
    [
        ("main", "main", "tiny"),
        ("fine", "main", "tiny.fine"),
        ("main", "try", "tiny.main.try"),
        ("fine", "try", "tiny.fine.try"),
    ],
)
def test_compile_each_chain_has_own_dag(tmp_path: Path, stage: str, branch: str, dag_id: str) -> None:
    dag = compiled(tmp_path, MINIMAL, stage=stage, branch=branch)
    following: Any = dag.get_task("next")
    assert (dag.dag_id, following.trigger_dag_id) == (dag_id, dag_id)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gates: [auc > x]\n", r"4:9: gates\[0\]: condition 'auc > x': expected a number"),
        ("gates: auc\n", "4:8: gates: expected a list; got 'auc'"),
        ("gates: [3]\n", r"4:9: gates\[0\]: expected a section of keys \(require, otherwise\); got 3"),
        ("gates: [{otherwise: skip}]\n", r"4:9: section 'gates\[0\]' lacks the key 'require'"),
        (
            "gates:\n  - loss < 1\n  - {require: auc > 1, else: skip}\n",
            r"6:24: unknown key 'else' in section 'gates\[1\]'; allowed: require, otherwise",
        ),
        (
            "gates:\n  - require: auc > 1\n    otherwise: rewind\n",
            r"6:16: gates\[0\]\.otherwise: 'rewind' is nothing a gate can do: write stop, skip, or rewind N",
        ),
        ("gates: [{require: auc}]\n", r"4:19: gates\[0\]\.require: condition 'auc': expected one of"),
        ("promote: {alias: champion, when: auc}\n", r"4:34: .*condition 'auc': expected one of"),
        ("promote: {alias: latest}\n", r"4:18: .*'latest' cannot be an alias"),
        ("promote: [{alias: x, wen: []}]\n", r"4:22: unknown key 'wen' in section 'promote\[0\]'; did you mean 'when'"),
    ],
)
def test_gate_that_cannot_be_read_is_told_at_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(PipelineFileError, match=rf"^p\.yaml:{told}"):
        compiled(tmp_path, MINIMAL + text)


def test_tasks_after_commit(tmp_path: Path) -> None:
    dag = compiled(
        tmp_path,
        MINIMAL + 'after_commit:\n  - {name: export, function: "json:loads", retries: 5}\n'
        "  - {name: report, command: [python, report.py]}\n",
    )

    export, report = (dag.get_task(name) for name in ("export", "report"))
    assert (export.function, export.retries, report.command) == ("json:loads", 5, ["python", "report.py"])  # type: ignore[attr-defined]
    after = {task.task_id for task in to_document(dag).tasks if "commit" in task.upstream}
    assert after == {"export", "report", "next"}
    assert to_document(dag).task("export").role == "after_commit"  # type: ignore[union-attr]
    with pytest.raises(PipelineFileError, match=r"after_commit\[0\]: give either 'function' or 'command'"):
        compiled(tmp_path, MINIMAL + "after_commit: [{name: x}]\n")


def test_compile_one_promotion_needs_no_list(tmp_path: Path) -> None:
    dag = compiled(tmp_path, MINIMAL + "promote: {alias: champion, when: auc >= 0.65}\n")

    commit: Any = dag.get_task("commit")
    assert commit.promote == (Promote("champion", ("auc >= 0.65",)),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("adopt: {path: models/latest}", r"adopt.path 'models/latest' has no time pattern, so every checkpoint"),
        ('adopt: {path: "m/{watermark:%Y%m%d}", watermark: oldest}', r"adopt.watermark"),
        (
            'adopt: {path: "m/{watermark:%Y%m%d}"}\ninit_from: other/main/main',
            "a stage that starts from another one adopts nothing",
        ),
    ],
)
def test_compile_impossible_import_is_refused(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(PipelineFileError, match=said):
        compiled(tmp_path, f"{MINIMAL}{line}\n")


def test_pipeline_outside_project_finds_its_functions_beside_it(tmp_path: Path) -> None:
    (tmp_path / "training_of_test.py").write_text("def train(ctx): ...\n")
    text = MINIMAL.replace("json:loads", "training_of_test:train")
    assert compiled(tmp_path, text).has_task("train")
    with pytest.raises(PipelineFileError, match=r"p\.yaml:3:.*training_of_test\.py defines no 'trian'"):
        compiled(tmp_path, text.replace(":train", ":trian"))


def test_compile_one_file_is_one_version_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(FULL)
    code = (
        "import sys; from pathlib import Path\n"
        "from trainflow.pipeline_spec.load import load_pipeline_file\n"
        "from trainflow.serialization.document import encode\n"
        "from trainflow.serialization.from_dag import to_document\n"
        "from trainflow.settings.project import project_at\n"
        "path = Path(sys.argv[1])\n"
        "loaded = load_pipeline_file(path, {}, project_at(path.parent))\n"
        "sys.stdout.buffer.write(encode(to_document(loaded.dags[0], loaded.content)))\n"
    )
    documents = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            check=True,
            capture_output=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(documents) == 1


def test_parameter_is_part_of_version_and_so_is_its_file(tmp_path: Path) -> None:
    path, project = tmp_path / "p.yaml", project_at(tmp_path)
    path.write_text(MINIMAL + "config: params.yaml\n")
    contents = []
    for text in ("x: 1\n", "x: 1  # the same\n", "x: 2\n"):
        (tmp_path / "params.yaml").write_text(text)
        contents.append(load_pipeline_file(path, {}, project).content)
    assert contents[0] == contents[1] != contents[2]
    assert load_pipeline_file(path, {}, project).files == (tmp_path / "params.yaml",)


def test_changed_parameter_makes_loaded_pipeline_stale(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(MINIMAL + "config: params.yaml\n")
    (tmp_path / "params.yaml").write_text("x: 1\n")
    loaded = dag_files.DagFiles(project_at(tmp_path))
    loaded.get(DagSource("p.yaml"))
    assert loaded.changed() is None
    (tmp_path / "params.yaml").write_text("x: 22\n")
    assert loaded.changed() == tmp_path / "params.yaml"


# -- the pipelines of this repository ------------------------------------------------------------------------------


def document(name: str) -> DagDocument:
    loaded = dag_files.load(DagSource(f"pipelines/{name}"), project_at(ROOT))
    (dag,) = loaded.dags.values()
    return to_document(dag, loaded.content)


def test_yaml_and_python_example_are_same_dag() -> None:
    yaml, python = document("flight_delay.yaml"), document("flight_delay_dag.py")
    assert edges(yaml) == edges(python)
    assert [task.retry for task in yaml.tasks] == [task.retry for task in python.tasks]
    assert yaml.params == python.params
    assert python.max_active_runs == yaml.max_active_runs == 1
    assert yaml.chain is not None
    assert python.chain is not None
    assert (yaml.chain.limits, yaml.chain.mode) == (python.chain.limits, python.chain.mode)
    assert yaml.dag_id != python.dag_id


def test_compile_example_with_stages_has_base_and_fine_tunes() -> None:
    loaded = dag_files.load(DagSource("pipelines/flight_delay_stages.yaml"), project_at(ROOT))
    documents = {dag_id: to_document(dag) for dag_id, dag in loaded.dags.items()}
    base = documents.pop("flight_delay_stages.base")
    triggers = {task.template_fields.get("trigger_dag_id") for task in base.tasks} - {None, base.dag_id}
    assert triggers == documents.keys()
    for document in documents.values():
        assert document.chain is not None
        assert document.chain.init_from == InitFrom(ChainKey("flight_delay_stages", "base"), "same_watermark")
        assert document.params["origin"]["default"] == document.chain.stage.upper()


def test_latest_example_never_ends() -> None:
    chain = document("flight_delay_latest.yaml").chain
    assert chain is not None
    assert chain.mode == "latest"
    assert chain.samples is not None
    assert chain.samples.end is None


def test_warming_up_imports_what_functions_of_pipeline_need(tmp_path: Path) -> None:
    """A YAML pipeline names its functions: unless the warm process imports them, every attempt does."""
    (tmp_path / "warm_training_of_test.py").write_text("def train(ctx): ...\n")
    (tmp_path / "warm_bringing_of_test.py").write_text("def bring(ti): ...\n")
    text = MINIMAL.replace("json:loads", "warm_training_of_test:train")
    (tmp_path / "p.yaml").write_text(text + "prepare: {function: 'warm_bringing_of_test:bring'}\n")
    code = (
        "import sys; from pathlib import Path\n"
        "from trainflow.execution import dag_files\n"
        "from trainflow.messages.workload import DagSource\n"
        "from trainflow.settings.project import project_at\n"
        "root = Path(sys.argv[1])\n"
        "(dag,) = dag_files.load(DagSource('p.yaml'), project_at(root)).dags.values()\n"
        "assert not {'warm_training_of_test', 'warm_bringing_of_test', 'pyarrow'} & set(sys.modules)\n"
        "for task in dag.tasks: task.warm_up(root)\n"
        "assert {'warm_training_of_test', 'warm_bringing_of_test'} <= set(sys.modules)\n"
        "assert 'pyarrow.parquet' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
