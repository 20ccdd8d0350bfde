"""Params of DAGs and tasks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.param import Param
from trainflow.errors import InputError, ParamValidationError


def test_task_params_override_those_of_dag_and_conf_overrides_both():
    with DAG("d", params={"n": Param(1, type="integer", minimum=1), "s": "text"}) as dag:
        task = BaseOperator(task_id="t", params={"n": Param(5, type="integer", minimum=5)})
        other = BaseOperator(task_id="o")
    assert dag.resolve_params() == {"n": 1, "s": "text"}
    assert task.resolve_params() == {"n": 5, "s": "text"}
    assert other.resolve_params({"n": 2}) == {"n": 2, "s": "text"}
    with pytest.raises(ParamValidationError, match="param 'n': 2 is less than 5"):
        task.resolve_params({"n": 2})


@pytest.mark.parametrize("make", [lambda: Param(1, typo=1), lambda: Param(datetime(2013, 1, 1, tzinfo=UTC)),
                                  lambda: Param(float("nan")), lambda: Param(1, enum=[{1}])])  # fmt: skip
def test_param_that_cannot_be_is_refused_where_it_is_written(make):
    with pytest.raises(InputError):
        make()


def test_param_standing_alone_is_resolved():
    assert Param(3, description="how many", type="integer").resolve() == 3
    assert Param(type="integer").resolve(4) == 4
    with pytest.raises(ParamValidationError, match="no default"):
        Param(type="integer").resolve()
    assert Param((1, 2), "d").schema == {"default": [1, 2], "description": "d"}
