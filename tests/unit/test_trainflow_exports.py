"""`import trainflow`: the names it offers, and what it loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import trainflow

HEAVY = ("sqlalchemy", "mlflow", "pyarrow", "fastapi", "pydantic", "jinja2", "fsspec", "pandas", "numpy")


def loaded(code):
    script = f"import sys; {code}; print(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_import_loads_nothing_heavy():
    assert not loaded("import trainflow") & {*HEAVY, "msgspec", "asyncio"}


@pytest.mark.parametrize(
    "code",
    [
        "from trainflow import *",
        "import trainflow.serialization.from_dag",
        "import trainflow.authoring.context, trainflow.authoring.templates, trainflow.authoring.decorators",
    ],
)
def test_writing_dag_loads_nothing_heavy(code):
    assert not loaded(code) & {*HEAVY, "asyncio"}


def names_for_type_checkers():
    tree = ast.parse(Path(trainflow.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_trainflow_exports_match_declarations():
    declared = names_for_type_checkers()
    assert trainflow.__all__ == sorted(trainflow.__all__)
    assert set(trainflow.__all__) == set(declared)
    assert declared == trainflow._HOMES
    for name, home in declared.items():
        assert getattr(trainflow, name) is getattr(import_module(home), name)
    assert set(trainflow.__all__) <= set(dir(trainflow))


def test_unknown_name_is_attribute_error():
    with pytest.raises(AttributeError, match="'trainflow' has no attribute 'Dag'"):
        _ = trainflow.Dag


def test_decorated_pipeline_needs_one_import():
    from trainflow import DAG, task

    @task
    def work():
        return 1

    with DAG("d") as dag:
        work()
    assert dag.task_ids == ["work"]
