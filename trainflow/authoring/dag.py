"""A DAG: tasks, the edges between them, and what holds for all its runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Never, Self

from trainflow.authoring import arguments
from trainflow.authoring.checked_call import CheckedCall
from trainflow.authoring.graph import Graph
from trainflow.authoring.operator_type import enter, leave
from trainflow.authoring.param import schemas_of
from trainflow.authoring.task_group import TaskGroup, task_edges
from trainflow.authoring.xcom_arg import holds_xcom_arg
from trainflow.errors import DagDefinitionError, InputError
from trainflow.identifiers import check_name
from trainflow.param_schema import resolve

if TYPE_CHECKING:
    from trainflow.authoring.operator import BaseOperator

_AUTHORING = os.path.dirname(__file__) + os.sep
_made: ContextVar[list[DAG] | None] = ContextVar("trainflow_made_dags", default=None)


class DAG(metaclass=CheckedCall):
    """`with DAG("flight_delay"):`: operators made inside belong to it.

    Pipelines trigger themselves (`TriggerDagRunOperator`), so `schedule` is None and nothing else.
    `max_active_tasks` limits the tasks of one run. `dagrun_timeout` is a timedelta or seconds, and goes on
    while no engine runs. `fail_fast` ends a run with its first failed task: what runs beside it fails, too.
    """

    def __init__(
        self,
        dag_id: str,
        *,
        description: str | None = None,
        schedule: None = None,
        default_args: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        max_active_runs: int = 16,
        max_active_tasks: int = 16,
        dagrun_timeout: timedelta | float | None = None,
        fail_fast: bool = False,
        tags: Sequence[str] = (),
        doc_md: str | None = None,
        is_paused_upon_creation: bool = False,
        user_defined_macros: Mapping[str, Any] | None = None,
        user_defined_filters: Mapping[str, Callable[..., Any]] | None = None,
        render_template_as_native_obj: bool = False,
        **unexpected: Never,
    ) -> None:
        """Raises InputError for what cannot be, UnexpectedArgument for a keyword that does not exist."""
        self.dag_id = check_name(dag_id, "DAG")
        owner = f"DAG {dag_id!r}"
        arguments.refuse_unexpected(owner, unexpected, dag_arguments())
        if schedule is not None:
            raise InputError(
                f"{owner}: schedule={schedule!r}: only None is supported, because pipelines trigger themselves; "
                "end the DAG with a TriggerDagRunOperator"
            )
        self.description = arguments.optional_text(description, f"{owner}: description")
        self.param_schemas = schemas_of(arguments.mapping(params, f"{owner}: params"))
        self.max_active_runs = arguments.whole_number(max_active_runs, f"{owner}: max_active_runs", at_least=1)
        self.max_active_tasks = arguments.whole_number(max_active_tasks, f"{owner}: max_active_tasks", at_least=1)
        self.dagrun_timeout = arguments.optional_duration(dagrun_timeout, f"{owner}: dagrun_timeout")
        self.fail_fast = arguments.yes_or_no(fail_fast, f"{owner}: fail_fast")
        self.tags = sorted(set(arguments.texts(tags, f"{owner}: tags")))
        self.doc_md = arguments.optional_text(doc_md, f"{owner}: doc_md")
        self.is_paused_upon_creation = arguments.yes_or_no(is_paused_upon_creation, f"{owner}: is_paused_upon_creation")
        self.user_defined_macros = arguments.mapping(user_defined_macros, f"{owner}: user_defined_macros")
        self.user_defined_filters = arguments.mapping(user_defined_filters, f"{owner}: user_defined_filters")
        native = arguments.yes_or_no(render_template_as_native_obj, f"{owner}: render_template_as_native_obj")
        self.render_template_as_native_obj = native
        #: the file the DAG is written in; template files are looked up beside it. Never part of the document
        self.fileloc = _calling_file()
        self.root_group = TaskGroup.root(self, arguments.mapping(default_args, f"{owner}: default_args"))
        self._tasks: dict[str, BaseOperator] = {}
        self._groups: dict[str, TaskGroup] = {}
        self._edges: list[tuple[BaseOperator | TaskGroup, BaseOperator | TaskGroup]] = []
        made = _made.get()
        if made is not None:
            made.append(self)

    def __repr__(self) -> str:
        return f"<DAG {self.dag_id}>"

    def __enter__(self) -> Self:
        enter(self.root_group)
        return self

    def __exit__(self, *exc_info: object) -> None:
        leave(self.root_group)

    # -- members -----------------------------------------------------------------------------------------------------

    @property
    def default_args(self) -> dict[str, Any]:
        """Arguments of operators that do not give them themselves."""
        return self.root_group.default_args

    @property
    def tasks(self) -> list[BaseOperator]:
        """Every task, in the order of creation."""
        return list(self._tasks.values())

    @property
    def task_ids(self) -> list[str]:
        """Every task's id, in the order of creation."""
        return list(self._tasks)

    @property
    def task_group_dict(self) -> dict[str, TaskGroup]:
        """Group id → group."""
        return dict(self._groups)

    def has_task(self, task_id: str) -> bool:
        """Whether a task has this id."""
        return task_id in self._tasks

    def get_task(self, task_id: str) -> BaseOperator:
        """The task of this id. Raises DagDefinitionError when there is none."""
        if task_id not in self._tasks:
            hint = arguments.nearest(task_id, self._tasks)
            raise DagDefinitionError(f"DAG {self.dag_id!r} has no task {task_id!r}.{hint}", task_ids=(task_id,))
        return self._tasks[task_id]

    def add_task(self, task: BaseOperator) -> None:
        """Called by the operator when it has been constructed. Raises DagDefinitionError when its id is taken."""
        self._refuse_taken(task.task_id, task.task_type)
        self._tasks[task.task_id] = task
        assert task.task_group is not None
        task.task_group.children.append(task)

    def add_group(self, group: TaskGroup) -> None:
        """Called by the group when it is made. Raises DagDefinitionError when its id is taken."""
        self._refuse_taken(group.group_id, "task group")
        self._groups[group.group_id] = group

    def _refuse_taken(self, name: str, kind: str) -> None:
        other = self._tasks.get(name) or self._groups.get(name)
        if other is not None:
            raise DagDefinitionError(
                f"DAG {self.dag_id!r} has {other!r} already: {name!r} cannot name a second one ({kind}); "
                "give another task_id or group_id",
                task_ids=(name,),
            )

    def free_id(self, wanted: str, group: TaskGroup) -> str:
        """`wanted`, or `wanted__1`, `wanted__2`, … when that name is taken in `group`."""
        name, number = wanted, 0
        while group.child_id(name) in self._tasks or group.child_id(name) in self._groups:
            number += 1
            name = f"{wanted}__{number}"
        return name

    # -- edges -------------------------------------------------------------------------------------------------------

    def add_edge(self, before: BaseOperator | TaskGroup, after: BaseOperator | TaskGroup) -> None:
        """Let `after` wait for `before`. Raises DagDefinitionError when one of them is not in this DAG."""
        for node in (before, after):
            if node.dag is not self:
                raise DagDefinitionError(
                    f"{before!r} and {after!r} are in different DAGs ({before.dag.dag_id!r}, {after.dag.dag_id!r}); "
                    "to start another DAG use TriggerDagRunOperator"
                )
        self._edges.append((before, after))

    def graph(self) -> Graph:
        """Tasks and edges as they are now: those written with `>>` and those of XComArgs in template fields.

        Raises DagDefinitionError when a field refers to a task that is not there.
        """
        upstream: dict[str, set[str]] = {task_id: set() for task_id in self._tasks}
        edges = list(self._edges)
        for task in self._tasks.values():
            edges += [(self._referenced(task, task_id), task) for task_id in sorted(task.referenced_task_ids())]
        for before, after in task_edges(self.root_group, edges):
            upstream[after].add(before)
        return Graph(upstream)

    def _referenced(self, task: BaseOperator, task_id: str) -> BaseOperator:
        if task_id not in self._tasks:
            raise DagDefinitionError(
                f"task {task.task_id!r} holds the output of {task_id!r}, which is not in DAG {self.dag_id!r}",
                task_ids=(task.task_id, task_id),
            )
        return self._tasks[task_id]

    def topological_sort(self) -> list[BaseOperator]:
        """Every task after those it waits for, then by id. Raises DagDefinitionError for a cycle."""
        return [self._tasks[task_id] for task_id in self.graph().order()]

    # -- checks ------------------------------------------------------------------------------------------------------

    def validate(self) -> Graph:
        """Check the whole DAG once it is written; the graph. Raises InputError for the first thing that cannot be."""
        if not self._tasks:
            raise DagDefinitionError(f"DAG {self.dag_id!r} has no tasks")
        self._check_default_args()
        for task in self._tasks.values():
            _check_fields(task)
        graph = self.graph()
        graph.order()
        return graph

    def _check_default_args(self) -> None:
        accepted: frozenset[str] = frozenset().union(*(type(task).accepted_arguments() for task in self.tasks))
        for group in self.root_group.groups():
            owner = f"default_args of {group!r}: no task of DAG {self.dag_id!r}"
            arguments.refuse_unexpected(owner, group.default_args.keys() - accepted, accepted)

    def resolve_params(self, conf: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Values of the params in a run with this `conf`, which overrides them. Raises ParamValidationError."""
        return resolve(self.param_schemas, conf)


def _check_fields(task: BaseOperator) -> None:
    attributes = vars(task)
    for field in task.template_fields:
        if not hasattr(task, field):
            raise DagDefinitionError(
                f"template_fields of {task.task_type} names {field!r}, which task {task.task_id!r} does not have",
                task_ids=(task.task_id,),
            )
    for name, value in attributes.items():
        if name not in task.template_fields and holds_xcom_arg(value):
            raise DagDefinitionError(
                f"task {task.task_id!r}: {name} holds the output of another task, but only template fields may "
                f"({', '.join(task.template_fields) or 'it has none'}); add {name!r} to template_fields of "
                f"{task.task_type}",
                task_ids=(task.task_id,),
            )


def dag_arguments() -> frozenset[str]:
    """Names of every keyword a DAG takes."""
    code = DAG.__init__.__code__
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    return frozenset(names)


@contextmanager
def collecting_dags() -> Iterator[list[DAG]]:
    """Every DAG made while this is open, in order: what a loader finds in a pipeline file however it is written."""
    made: list[DAG] = []
    token = _made.set(made)
    try:
        yield made
    finally:
        _made.reset(token)


def _calling_file() -> str | None:
    """The file of the innermost caller outside of this package."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_AUTHORING):
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_code.co_filename if frame is not None else None
