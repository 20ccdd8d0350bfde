from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

import trainflow
from trainflow.errors import InputError, TemplateError, TrainflowError
from trainflow.execution.attempt_ending import explain_error, is_programming_error

HERE = Path(__file__).parent


class Net:
    def partial_fit(self, rows: int, *, epochs: int = 1) -> None:
        raise ConnectionError("later")


def fit(rows: int, *, epochs: int = 1) -> None:
    raise ValueError(f"{rows} {epochs}")


def caused(code: str) -> Exception:
    model: Any = Net()
    learning_rate = 0.1
    try:
        exec_in_this_file(code, {"model": model, "learning_rate": learning_rate, "fit": fit})
    except Exception as error:
        return error
    raise AssertionError(code)


def exec_in_this_file(code: str, names: dict[str, Any]) -> None:
    exec(compile(code, __file__, "exec"), names)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("learning_rat", "NameError: name 'learning_rat' is not defined; did you mean 'learning_rate'?"),
        ("model.partal_fit(1)", "AttributeError: 'Net' object has no attribute 'partal_fit'; did you mean 'partial_fit'?"),  # noqa: E501
        ("fit(1, epoch=2)", "TypeError: fit() got an unexpected keyword argument 'epoch'; did you mean 'epochs'?"),
        ("'a' + 1", 'TypeError: can only concatenate str (not "int") to str'),
    ],
)  # fmt: skip
def test_explain_mistake_names_line_and_what_was_meant(code: str, said: str) -> None:
    error = caused(code)
    assert is_programming_error(error, HERE)
    # newer Pythons say themselves what may have been meant
    assert explain_error(error, HERE).replace(". Did you", "; did you") == f"{said} ({Path(__file__).name}:1)"


def test_explain_error_from_outside_project_has_no_line(tmp_path: Path) -> None:
    assert explain_error(caused("fit()"), tmp_path).startswith(
        "TypeError: fit() missing 1 required positional argument"
    )


def template_error(cause: Exception | None) -> TemplateError:
    error = TemplateError("task 'a', field 'b': x", task_id="a", field="b", expression="{{ x }}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad row"), False),
        (KeyError("price"), False),
        (ConnectionError("refused"), False),
        (TypeError("'NoneType' object is not subscriptable"), False),  # the answer of a service that was empty
        (AttributeError("'NoneType' object has no attribute 'json'"), False),
        (UnboundLocalError("x"), True),
        (template_error(None), True),
        (template_error(jinja2.UndefinedError("'x' is undefined")), True),
        (template_error(NameError("x")), True),
        (template_error(OSError("the macro's server is away")), False),
        (TrainflowError("x"), False),
    ],
)
def test_programming_error_is_recognised(error: Exception, expected: bool) -> None:
    assert is_programming_error(error, HERE) is expected


def refuse(file: Path) -> InputError:
    """An error of trainflow's that code in `file` has called forth."""
    words = "columns=None, batch_size=0, seed=None, rank=0, world_size=1, position=None"
    code = f"from trainflow.samples.rows.batches import Batches\nBatches(None, {words})"
    with pytest.raises(InputError) as caught:
        exec(compile(code, str(file), "exec"), {})
    assert caught.value.__traceback__ is not None
    return caught.value.with_traceback(caught.value.__traceback__.tb_next)


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("operators/clicks.py", True),
        (".venv/lib/python3.11/site-packages/models/clicks.py", False),
        ("../elsewhere.py", False),
    ],
)
def test_what_project_asks_for_in_vain_is_its_mistake(tmp_path: Path, file: str, own: bool) -> None:
    error = refuse((tmp_path / file).resolve())
    assert is_programming_error(error, tmp_path) is own
    assert explain_error(error, tmp_path).endswith(f"({file}:2)" if own else "at least 1")


def test_what_trainflow_refuses_by_itself_is_no_mistake_of_project_that_it_lies_in() -> None:
    root = Path(trainflow.__file__).parents[1]
    assert not is_programming_error(refuse(root / "trainflow/somewhere.py"), root)
