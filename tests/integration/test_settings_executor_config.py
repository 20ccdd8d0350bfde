"""What tasks ask of their executor is checked when their pipeline is read, with files and lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.execution.parse import parse
from trainflow.messages.workload import DagSource, ParseFile, ParseResult
from trainflow.serialization.document import decode
from trainflow.settings.project import MARKER

SETTINGS = """
[executor]
default = "cluster"
[executors.cluster]
type = "kubernetes"
image = "any"
namespace = "ml"
namespaces = ["gpu"]
[executors.local]
"""
PYTHON = """
from trainflow import DAG
from trainflow.operators import PythonOperator

with DAG("d", default_args={{"executor_config": {config}}}):
    PythonOperator(task_id="t", python_callable=print{more})
"""
YAML = """
pipeline: p
executor_config: {{image: "registry/all:1"}}
samples: {{path: "samples/{{start:%Y-%m-%d}}.parquet", start: 2024-01-01, length: 1d}}
train:
  function: operators.p:train
  executor_config:
    pod_template: {template}
"""


def read(folder: Path, name: str, text: str) -> ParseResult:
    files = {str(MARKER): SETTINGS, f"pipelines/{name}": text, "operators/p.py": "def train(ctx): ...\n"}
    files |= {
        "configs/good.yaml": "spec: {nodeSelector: {gpu: h100}}\n",
        "configs/bad.yaml": "spec:\n  nodeselector: {}\n",
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return parse(ParseFile(DagSource(f"pipelines/{name}"), str(folder), str(folder / ".trainflow")))


@pytest.mark.parametrize(
    ("config", "more", "told"),
    [
        ({"imge": "x"}, "", "task 't': executor_config: unknown key 'imge'; did you mean 'image'?"),
        ({"image": 1}, "", "task 't': executor_config: Expected `str | null`, got `int` - at `$.image`"),
        ({"namespace": "gpus"}, "", "namespace 'gpus' is none of executor 'cluster'; did you mean 'gpu'?"),
        ({"pod_template": "configs/bad.yaml"}, "", "configs/bad.yaml:2:3: spec.nodeselector: unknown field"),
        ({"pod_template": "configs/none.yaml"}, "", "configs/none.yaml: the pod template cannot be read"),
        ({"image": "x"}, ', executor="local"', "executor 'local' is of type local, and can be asked for nothing"),
    ],
)
def test_wrong_config_of_python_pipeline_is_refused(
    tmp_path: Path, config: dict[str, object], more: str, told: str
) -> None:
    pytest.importorskip("lightkube")
    problem = read(tmp_path, "d.py", PYTHON.format(config=config, more=more)).problem
    assert problem is not None
    assert told in problem.message


def test_good_config_is_in_the_document(tmp_path: Path) -> None:
    config = {"image": "x", "namespace": "gpu", "pod_template": "configs/good.yaml"}
    result = read(tmp_path, "d.py", PYTHON.format(config=config, more=""))
    assert result.problem is None
    assert decode(bytes(result.dags[0].document)).tasks[0].executor_config == config


def test_config_of_yaml_pipeline_is_that_of_section_over_that_of_pipeline(tmp_path: Path) -> None:
    result = read(tmp_path, "p.yaml", YAML.format(template="configs/good.yaml"))
    assert result.problem is None, result.problem
    tasks = {task.task_id: task.executor_config for task in decode(bytes(result.dags[0].document)).tasks}
    assert tasks["train"] == {"image": "registry/all:1", "pod_template": "configs/good.yaml"}
    assert tasks["commit"] == {"image": "registry/all:1"}


def test_wrong_template_of_yaml_pipeline_is_told_with_both_lines(tmp_path: Path) -> None:
    pytest.importorskip("lightkube")
    problem = read(tmp_path, "p.yaml", YAML.format(template="configs/bad.yaml")).problem
    assert problem is not None
    assert (
        "p.yaml:8:5: train.executor_config: configs/bad.yaml:2:3: spec.nodeselector: unknown field" in problem.message
    )


@pytest.mark.parametrize(
    ("executor", "nodes", "told"),
    [
        ("local", 9, "9: executor 'local' gives a task at most 4 processes, all of one host (executors.local.nodes): "),
        ("queue", 3, "3: executor 'queue' gives a task at most 2 processes, all of one host (executors.queue.nodes): "),
        ("cluster", 65, "65: executor 'cluster' gives a task at most 64 (executors.cluster.nodes): ask for fewer"),
        ("local", 4, None),
        ("queue", 2, None),
        ("cluster", 64, None),
        ("ray", 1024, None),
    ],
)
@pytest.mark.parametrize("form", ["yaml", "python"])
def test_more_nodes_than_executor_gives_are_refused_when_pipeline_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, nodes: int, told: str | None, form: str
) -> None:
    pytest.importorskip("lightkube")
    pytest.importorskip("celery")
    monkeypatch.setitem(
        globals(),
        "SETTINGS",
        """
[executors]
local = {nodes = 4}
queue = {type = "celery", broker = "memory://", nodes = 2}
cluster = {type = "kubernetes", image = "any", nodes = 64}
ray = {address = "http://head:8265"}
""",
    )
    if form == "yaml":
        text = f"""
pipeline: p
samples: {{path: "samples/{{start:%Y-%m-%d}}.parquet", start: 2024-01-01, length: 1d}}
train: {{function: "operators.p:train", nodes: {nodes}, executor: {executor}}}
"""
        where = f"p.yaml:4:{text.splitlines()[3].index(str(nodes)) + 1}: train.nodes: "
    else:
        text = f"""
from trainflow import DAG
from trainflow.operators import PythonOperator

with DAG("d"):
    PythonOperator(task_id="t", python_callable=print, executor="{executor}").nodes = {nodes}
"""
        where = "p.py: task 't': nodes: "
    problem = read(tmp_path, f"p.{'yaml' if form == 'yaml' else 'py'}", text).problem
    if told is None:
        assert problem is None, problem
    else:
        assert problem is not None
        assert where + told in problem.message
