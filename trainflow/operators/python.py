"""PythonOperator: call a function. EmptyOperator: do nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from trainflow.authoring import arguments
from trainflow.authoring.context import Context
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.python_call import call_with_context, check_call
from trainflow.errors import InputError
from trainflow.operators import function_reference


class PythonOperator(BaseOperator):
    """Call `python_callable(*op_args, **op_kwargs)`; what it returns is the task's result.

    The callable may be given as `"module.path:name"`, which is imported when the task runs (the project's root is
    importable). A parameter named like a key of the context (`ti`, `params`, `run_id`, …) gets that value; `**kwargs`
    gets all of them; `templates_dict` reaches the parameter of that name. A function that raises SkipException ends the
    task as skipped.
    """

    template_fields: ClassVar[Sequence[str]] = ("op_args", "op_kwargs", "templates_dict")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any] | str,
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        templates_dict: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.python_callable = python_callable
        self.op_args = tuple(op_args or ())
        self.op_kwargs = arguments.mapping(op_kwargs, f"task {self.task_id!r}: op_kwargs")
        self.templates_dict = templates_dict
        if isinstance(python_callable, str):
            function_reference.split_reference(python_callable)
        elif callable(python_callable):
            extra = {} if templates_dict is None else {"templates_dict": templates_dict}
            check_call(python_callable, self.op_args, {**self.op_kwargs, **extra}, f"task {self.task_id!r}")
        else:
            raise InputError(f"task {self.task_id!r}: python_callable is {python_callable!r}, which cannot be called")

    def warm_up(self, project_root: Path) -> None:
        super().warm_up(project_root)
        function_reference.resolve(self.python_callable, project_root)

    def execute(self, context: Context) -> Any:
        function = function_reference.resolve_for_good(self.python_callable, context["ti"].project_root)
        extra = {} if self.templates_dict is None else {"templates_dict": self.templates_dict}
        return call_with_context(function, self.op_args, {**self.op_kwargs, **extra}, context)


class EmptyOperator(BaseOperator):
    """Operator that does nothing and succeeds."""

    def execute(self, context: Context) -> None:
        return None
