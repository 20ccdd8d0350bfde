"""PythonOperator and EmptyOperator."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from trainflow.errors import FailException, InputError
from trainflow.operators import EmptyOperator, PythonOperator


def python(dag: Any, function: Any, **options: Any) -> Any:
    return dag(lambda: PythonOperator(task_id="p", python_callable=function, **options), params={"depth": 3})


def test_arguments_are_rendered_and_context_comes_by_name(lab: Any, dag: Any) -> None:
    def function(a: str, b: str, *, ti: Any, params: dict[str, Any]) -> list[Any]:
        return [a, b, ti.task_id, params["depth"]]

    build = python(dag, function, op_args=["{{ run_id }}"], op_kwargs={"b": "{{ params.depth + 1 }}"})
    assert lab.run(build, "p") == ["run-1", "4", "p", 3]


def test_keywords_get_whole_context(lab: Any, dag: Any) -> None:
    assert lab.run(python(dag, lambda **context: context["run_id"]), "p") == "run-1"


def test_python_templates_dict_is_rendered(lab: Any, dag: Any) -> None:
    build = python(dag, lambda templates_dict: templates_dict["x"], templates_dict={"x": "{{ run_id }}"})
    assert lab.run(build, "p") == "run-1"


def test_function_by_name(lab: Any, dag: Any) -> None:
    (lab.root / "lab_prepare.py").write_text("def prepare(ti, day='x'):\n    return [ti.run_id, day]\n")
    path = list(sys.path)
    try:
        assert lab.run(python(dag, "lab_prepare:prepare", op_kwargs={"day": "y"}), "p") == ["run-1", "y"]
        with pytest.raises(FailException, match="no 'prepair'; did you mean 'prepare'"):
            lab.run(python(dag, "lab_prepare:prepair"), "p")
    finally:
        sys.path[:] = path
        sys.modules.pop("lab_prepare", None)


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (lambda a: a, {}, "missing argument 'a'"),
        (lambda: 1, {"op_args": [1]}, "too many positional"),
        ("lab_prepare.prepare", {}, "write 'module.path:name'"),
        (3, {}, "cannot be called"),
    ],
)
def test_python_not_callable_is_refused_when_dag_is_made(dag: Any, function: Any, options: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        python(dag, function, **options)()


def test_empty_operator_succeeds(lab: Any, dag: Any) -> None:
    assert lab.run(dag(lambda: EmptyOperator(task_id="e")), "e") is None
