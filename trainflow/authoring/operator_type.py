"""How an operator is constructed: its place in the DAG, default_args, the constructor, then registration with the DAG.

What is being written right now is the innermost open `with DAG(...)` or `with TaskGroup(...)`.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from trainflow.authoring import arguments
from trainflow.authoring.checked_call import CheckedCall, check_types
from trainflow.bounds import clip
from trainflow.errors import InputError

if TYPE_CHECKING:
    from trainflow.authoring.dag import DAG
    from trainflow.authoring.task_group import TaskGroup

_open: ContextVar[tuple[TaskGroup, ...]] = ContextVar("trainflow_open_groups", default=())


def enter(group: TaskGroup) -> None:
    """`group` is the innermost from now on."""
    _open.set((*_open.get(), group))


def leave(group: TaskGroup) -> None:
    """The inverse of `enter`."""
    groups = _open.get()
    assert groups, f"{group!r} was left but never entered"
    assert groups[-1] is group, f"{group!r} is not the innermost"
    _open.set(groups[:-1])


def current_group() -> TaskGroup | None:
    """The innermost open task group; None outside of every DAG."""
    groups = _open.get()
    return groups[-1] if groups else None


class OperatorType(CheckedCall):
    """The type of every operator class.

    It stands before the constructor because `default_args` must also reach parameters that only a subclass has, and
    after it because a task whose constructor raised must not be left behind in the DAG.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        group = group_of(kwargs)
        defaults = dict(group.all_default_args()) if group is not None else {}
        defaults.update(arguments.mapping(kwargs.get("default_args"), f"{cls.__name__}: default_args"))
        if defaults:
            accepted = cls.accepted_arguments()
            given = set(_positional_names(cls)[: len(args)]) | kwargs.keys()
            kwargs.update({k: v for k, v in defaults.items() if k in accepted and k not in given})
        own = {name: value for name, value in kwargs.items() if name not in _checked_by_base(cls)}
        check_types(cls, own, getattr(cls, "template_fields", ()))
        operator = super().__call__(*args, **kwargs)
        if "task_id" not in vars(operator):
            raise InputError(f"{cls.__name__}.__init__ must call super().__init__(**kwargs)")
        operator._register()
        return operator

    def partial(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises InputError: there is no dynamic task mapping."""
        raise InputError(arguments.no_mapping(cls.__name__))

    def expand(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises InputError: there is no dynamic task mapping."""
        raise InputError(arguments.no_mapping(cls.__name__))

    def accepted_arguments(cls) -> frozenset[str]:
        """Names of every keyword that the constructors of the class and of its bases take."""
        cached = cls.__dict__.get("_accepted")
        if cached is None:
            cached = frozenset(name for base in cls.__mro__ for name in _own_parameters(base))
            cls._accepted = cached
        return cached


def _checked_by_base(cls: OperatorType) -> frozenset[str]:
    """Names of the arguments that the base of all operators checks itself, in words of its own."""
    return next(base for base in reversed(cls.__mro__) if isinstance(base, OperatorType)).accepted_arguments()


def _own_parameters(base: type) -> list[str]:
    constructor = base.__dict__.get("__init__")
    if constructor is None or base is object:
        return []
    keyword = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.kind in keyword]


def _positional_names(cls: type) -> list[str]:
    positional = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}
    constructor = next(vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.kind in positional]


def group_of(kwargs: dict[str, Any]) -> TaskGroup | None:
    """Where an operator with these keyword arguments belongs: `task_group`, `dag`, or what is being written."""
    given: TaskGroup | None = kwargs.get("task_group")
    dag: DAG | None = kwargs.get("dag")
    if dag is not None and not hasattr(dag, "root_group"):
        raise InputError(f"dag={clip(dag)} is no DAG; leave it out inside of `with DAG(...)`")
    if given is not None and not hasattr(given, "all_default_args"):
        raise InputError(f"{clip(given)} is no TaskGroup; leave it out inside of `with TaskGroup(...)`")
    if given is not None:
        return given
    current = current_group()
    if dag is None or (current is not None and current.dag is dag):
        # inside a group of the same DAG, `dag=` does not take the task out of the group
        return current
    return dag.root_group
