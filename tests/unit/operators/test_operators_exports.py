"""`trainflow.operators`: the names it offers, and what using one of them loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import trainflow.operators as operators

HEAVY = {"pyarrow", "fsspec", "mlflow", "jinja2", "pandas", "numpy", "pydantic", "sqlalchemy", "asyncio"}


def test_operators_exports_match_declarations() -> None:
    tree = ast.parse(Path(str(operators.__file__)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert operators.__all__ == sorted(operators.__all__)
    assert declared == {name: f"trainflow.{module}" for name, module in operators._MODULES.items()}
    assert set(operators.__all__) == set(declared)
    for name, module in declared.items():
        assert getattr(operators, name) is getattr(import_module(str(module)), name)
    with pytest.raises(AttributeError, match="has no attribute 'TrainOperater'"):
        _ = operators.TrainOperater  # type: ignore[attr-defined]


def test_operators_import_loads_nothing_heavy() -> None:
    script = """
import sys
import trainflow.operators
assert not [name for name in sys.modules if name.startswith("trainflow.operators.")]
from trainflow.operators import *
import trainflow.operators.triggers.time, trainflow.operators.triggers.dag_state, trainflow.operators.triggers.partition
print(" ".join({name.partition(".")[0] for name in sys.modules}))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(result.stdout.split())
