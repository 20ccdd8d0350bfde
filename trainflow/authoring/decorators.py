"""`@dag`, `@task`, `@task_group`, `@setup`, `@teardown`: functions instead of classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import update_wrapper, wraps
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, get_origin, overload

from trainflow.authoring.arguments import no_mapping
from trainflow.authoring.checked_call import refuse_call
from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.operator_type import current_group, group_of
from trainflow.authoring.python_call import call_with_context, check_call
from trainflow.authoring.task_group import TaskGroup
from trainflow.authoring.xcom_arg import XComArg
from trainflow.bounds import clip
from trainflow.errors import InputError

if TYPE_CHECKING:
    from trainflow.authoring.context import Context

_MAPPING_NAMES = ("dict", "Dict", "Mapping", "MutableMapping")


class DecoratedOperator(BaseOperator):
    """The operator behind `@task`. Context keys reach the function by parameter name."""

    template_fields: ClassVar[tuple[str, ...]] = ("op_args", "op_kwargs")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: tuple[Any, ...] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.python_callable = python_callable
        self.op_args = tuple(op_args)
        self.op_kwargs = dict(op_kwargs or {})
        check_call(python_callable, self.op_args, self.op_kwargs, f"task {self.task_id!r}")

    @property
    def task_type(self) -> str:
        return "@task"

    def execute(self, context: Context) -> Any:
        return call_with_context(self.python_callable, self.op_args, self.op_kwargs, context)


class TaskFunction:
    """A function that makes a task when it is called inside a DAG. `function` is the plain one, for tests of it."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any], role: str | None = None) -> None:
        if not callable(function):
            raise InputError(f"@task stands before a function, not before {function!r}; options are keywords")
        inner = function if isinstance(function, TaskFunction) else None
        self.function: Callable[..., Any] = inner.function if inner else function
        self.options: dict[str, Any] = {**(inner.options if inner else {}), **options}
        self.role: str | None = role or (inner.role if inner else None)
        update_wrapper(self, self.function)

    def partial(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises InputError: there is no dynamic task mapping."""
        raise InputError(no_mapping(f"@task {self.function.__name__}"))

    expand = expand_kwargs = partial

    def override(self, **options: Any) -> TaskFunction:
        """The same function with other options (`task_id=`, `retries=`, …)."""
        return TaskFunction(self.function, {**self.options, **options}, self.role)

    def __call__(self, *args: Any, **kwargs: Any) -> XComArg:
        options = {"multiple_outputs": _returns_mapping(self.function), **self.options}
        name = options.pop("task_id", None) or self.function.__name__
        group = group_of(options)
        if group is None:
            raise InputError(
                f"task {name!r} is made outside of a DAG: call it inside `with DAG(...)` or a @dag function; "
                "for the plain function use .function"
            )
        operator = DecoratedOperator(
            task_id=group.dag.free_id(name, group),
            python_callable=self.function,
            op_args=args,
            op_kwargs=kwargs,
            **options,
        )
        if self.role == "setup":
            operator.as_setup()
        elif self.role == "teardown":
            operator.as_teardown()
        return operator.output


def _returns_mapping(function: Callable[..., Any]) -> bool:
    """Whether the return annotation is a dict: each entry is then pushed under its own key as well (Airflow)."""
    annotation = getattr(function, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        return annotation.split("[")[0].rpartition(".")[2].strip() in _MAPPING_NAMES
    origin = get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Mapping)


@overload
def task(function: Callable[..., Any], /) -> TaskFunction: ...
@overload
def task(**options: Any) -> Callable[[Callable[..., Any]], TaskFunction]: ...
def task(
    function: Callable[..., Any] | None = None, /, **options: Any
) -> TaskFunction | Callable[[Callable[..., Any]], TaskFunction]:
    """`@task` or `@task(retries=2)`: calling the function makes a task and gives its output.

    Options are those of BaseOperator. Called twice, the second task is `name__1`.
    """
    if function is not None:
        return TaskFunction(function, options)
    return lambda decorated: TaskFunction(decorated, options)


def setup(function: Callable[..., Any]) -> TaskFunction:
    """Decorator, like `@task` or before it, for a task that is a setup."""
    return TaskFunction(function, {}, "setup")


def teardown(function: Callable[..., Any]) -> TaskFunction:
    """Decorator, like `@task` or before it, for a task that is a teardown; `.as_teardown(setups=…)` says of what."""
    return TaskFunction(function, {}, "teardown")


@overload
def dag(function: Callable[..., Any], /) -> Callable[..., DAG]: ...
@overload
def dag(dag_id: str | None = None, /, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., DAG]]: ...
def dag(
    function: Callable[..., Any] | str | None = None, /, *, dag_id: str | None = None, **options: Any
) -> Callable[..., Any]:
    """`@dag` or `@dag(tags=[…])`: calling the function, with what arguments it takes, makes the DAG. The id is the
    function's name unless given; values that a run may override are `params`."""
    if callable(function):
        return _dag_factory(function, function.__name__, {})
    name = function or dag_id
    if name is not None and not isinstance(name, str):
        raise InputError(f"@dag({clip(name)}): give the DAG's id, a string")

    def decorate(decorated: Callable[..., Any]) -> Callable[..., DAG]:
        return _dag_factory(decorated, name or decorated.__name__, options)

    return decorate


def _dag_factory(function: Callable[..., Any], dag_id: str, options: Mapping[str, Any]) -> Callable[..., DAG]:
    signature = inspect.signature(function)

    @wraps(function)
    def factory(*args: Any, **kwargs: Any) -> DAG:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            refuse_call(f"@dag {function.__name__}", function, args, kwargs, error)
        bound.apply_defaults()
        made = DAG(dag_id, **{"doc_md": inspect.cleandoc(function.__doc__) if function.__doc__ else None, **options})
        made.fileloc = function.__code__.co_filename
        with made:
            function(*bound.args, **bound.kwargs)
        return made

    return factory


def task_group(
    function: Callable[..., Any] | str | None = None, /, *, group_id: str | None = None, **options: Any
) -> Callable[..., Any]:
    """`@task_group` or `@task_group(group_id=…)`: calling the function makes a group of the tasks it makes, and gives
    what the function returns, or the group when it returns nothing. Called twice, the second is `name__1`."""
    if callable(function):
        return _group_factory(function, function.__name__, {})
    name = function or group_id
    return lambda decorated: _group_factory(decorated, name or decorated.__name__, options)


def _group_factory(function: Callable[..., Any], group_id: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    @wraps(function)
    def factory(*args: Any, **kwargs: Any) -> Any:
        parent = current_group()
        if parent is None:
            raise InputError(f"task group {group_id!r} is made outside of a DAG: call it inside `with DAG(...)`")
        with TaskGroup(parent.dag.free_id(group_id, parent), **options) as group:
            result = function(*args, **kwargs)
        return group if result is None else result

    return factory
