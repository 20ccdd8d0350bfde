"""A task: what it is called, when and how often it may run, what it waits for, and `execute`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Never, NoReturn, Self

from trainflow.authoring import arguments
from trainflow.authoring.graph import Linkable, linkables
from trainflow.authoring.operator_type import OperatorType, group_of
from trainflow.authoring.param import schemas_of
from trainflow.authoring.trigger import BaseTrigger
from trainflow.authoring.xcom_arg import XComArg, references
from trainflow.bounds import check_text
from trainflow.errors import DagDefinitionError, InputError, TriggerFailed, TriggerTimeout
from trainflow.identifiers import check_name
from trainflow.param_schema import check_json, resolve
from trainflow.states import TriggerRule, WeightRule
from trainflow.task_signals import TaskDeferred

if TYPE_CHECKING:
    from pathlib import Path

    from trainflow.authoring.context import Context
    from trainflow.authoring.dag import DAG
    from trainflow.authoring.task_group import TaskGroup

log = logging.getLogger("trainflow.task")

#: `next_method` of a task whose wait ended without an event; `next_kwargs` then hold `error` and `traceback`
FAIL_METHOD = "__fail__"
#: `next_method` of a task whose wait could not be taken up; `next_kwargs` then hold `reason`
START_OVER_METHOD = "__start_over__"
#: the `error` of a wait whose timeout passed
TRIGGER_TIMEOUT = "Trigger timeout"


class BaseOperator(Linkable, metaclass=OperatorType):
    """Base of every operator.

    Subclasses write `execute` and a constructor like

        def __init__(self, rows, **kwargs):
            super().__init__(**kwargs)
            self.rows = rows

    Durations are timedeltas or seconds. Template fields (`template_fields`) may hold Jinja expressions and XComArgs, as
    they are or inside lists, tuples and dicts; both are resolved before `execute`.
    """

    #: names of attributes that may hold templates and XComArgs
    template_fields: ClassVar[Sequence[str]] = ()
    #: a string in a template field that ends like this names a file beside the DAG file, whose text is rendered
    template_ext: ClassVar[Sequence[str]] = ()
    #: modules that `execute` imports and that are worth importing once for all attempts
    warm_modules: ClassVar[Sequence[str]] = ()
    #: what the task does for the chain its DAG trains (see `TaskDocument.role`): where people and the mirror look
    role: ClassVar[str | None] = None
    #: short and worth finishing: a stopping engine waits for it instead of telling it to stop
    shielded: ClassVar[bool] = False
    #: how many processes work at it together
    nodes: int = 1

    def __init__(
        self,
        *,
        task_id: str,
        retries: int = 0,
        retry_delay: timedelta | float = 300.0,
        retry_exponential_backoff: float = 0.0,
        max_retry_delay: timedelta | float | None = None,
        depends_on_past: bool = False,
        priority_weight: int = 1,
        weight_rule: str = WeightRule.DOWNSTREAM,
        queue: str = "default",
        executor: str | None = None,
        executor_config: Mapping[str, Any] | None = None,
        pool: str = "default_pool",
        pool_slots: int = 1,
        execution_timeout: timedelta | float | None = None,
        trigger_rule: str = TriggerRule.ALL_SUCCESS,
        max_active_tis_per_dag: int | None = None,
        max_active_tis_per_dagrun: int | None = None,
        do_xcom_push: bool = True,
        multiple_outputs: bool = False,
        params: Mapping[str, Any] | None = None,
        default_args: Mapping[str, Any] | None = None,
        doc_md: str | None = None,
        dag: DAG | None = None,
        task_group: TaskGroup | None = None,
        **unexpected: Never,
    ) -> None:
        """`retry_exponential_backoff` is the factor from one delay to the next (0: constant; True: 2),
        `max_retry_delay` caps it; `execution_timeout` ends an attempt with TaskTimeout. `executor` is one of those in
        `[executors]`, None: the one of the setting `executor.default`; `executor_config` is what the task asks of it.
        Raises InputError for what cannot be, UnexpectedArgument for a keyword that does not exist.
        """
        self.task_group = group_of({"dag": dag, "task_group": task_group})
        self.task_id = check_name(self.task_group.child_id(task_id) if self.task_group else task_id, "task")
        owner = f"task {self.task_id!r}"
        arguments.refuse_unexpected(f"{owner} ({type(self).__name__})", unexpected, type(self).accepted_arguments())
        self.retries = arguments.whole_number(retries, f"{owner}: retries", at_least=0)
        self.retry_delay = arguments.duration(retry_delay, f"{owner}: retry_delay")
        self.retry_exponential_backoff = _multiplier(retry_exponential_backoff, owner)
        self.max_retry_delay = arguments.optional_duration(max_retry_delay, f"{owner}: max_retry_delay")
        self.depends_on_past = arguments.yes_or_no(depends_on_past, f"{owner}: depends_on_past")
        # sums of weights are kept within 32 bits, so any weight will do
        self.priority_weight = arguments.whole_number(priority_weight, f"{owner}: priority_weight", at_most=None)
        self.weight_rule = arguments.one_of(weight_rule, WeightRule, f"{owner}: weight_rule")
        self.queue = check_text(queue, f"{owner}: queue")
        self.executor = None if executor is None else check_name(executor, "executor")
        self.executor_config = arguments.json_mapping(executor_config, f"{owner}: executor_config")
        self.pool = check_text(pool, f"{owner}: pool")
        self.pool_slots = arguments.whole_number(pool_slots, f"{owner}: pool_slots", at_least=1)
        self.execution_timeout = arguments.optional_duration(execution_timeout, f"{owner}: execution_timeout")
        self.trigger_rule = arguments.one_of(trigger_rule, TriggerRule, f"{owner}: trigger_rule")
        self.max_active_tis_per_dag = _limit(max_active_tis_per_dag, f"{owner}: max_active_tis_per_dag")
        self.max_active_tis_per_dagrun = _limit(max_active_tis_per_dagrun, f"{owner}: max_active_tis_per_dagrun")
        self.do_xcom_push = arguments.yes_or_no(do_xcom_push, f"{owner}: do_xcom_push")
        self.multiple_outputs = arguments.yes_or_no(multiple_outputs, f"{owner}: multiple_outputs")
        self.param_schemas = schemas_of(arguments.mapping(params, f"{owner}: params"))
        self.doc_md = arguments.optional_text(doc_md, f"{owner}: doc_md")
        self.is_setup = self.is_teardown = False

    def __repr__(self) -> str:
        return f"<{self.task_type} {self.task_id}>"

    # -- what subclasses write ---------------------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Do the work; the result is pushed as XCom `return_value` unless it is None.

        Raises SkipException to end as skipped, FailException to fail without further tries.
        """
        raise NotImplementedError(f"{type(self).__name__} has no execute()")

    def pre_execute(self, context: Context) -> None:
        """Called before `execute`, after rendering."""

    def post_execute(self, context: Context, result: Any = None) -> None:
        """Called after `execute` returned `result`."""

    def on_kill(self) -> None:
        """End whatever the task started elsewhere; called when the attempt is told to stop or times out."""

    def warm_up(self, project_root: Path) -> None:
        """Import what `execute` will import and compile short templates: called in the warm process, so that each
        attempt finds it done. Nothing of the user's is evaluated there: all launches would wait for it."""
        for name in self.warm_modules:
            import_module(name)
        from trainflow.authoring.templates import warm_up

        warm_up(self)

    def chain_facts(self) -> Mapping[str, Any]:
        """What this task knows of the chain its DAG trains: some of the fields of `ChainDocument`.

        The facts of all tasks of a DAG are put together; two tasks must not say different things of one field.
        """
        return {}

    # -- deferral ----------------------------------------------------------------------------------------------------

    def defer(
        self,
        *,
        trigger: BaseTrigger,
        method_name: str,
        kwargs: dict[str, Any] | None = None,
        timeout: timedelta | float | None = None,
    ) -> NoReturn:
        """Hand the wait to the triggerer and give the slot back; goes on in `method_name(context, event=…, **kwargs)`.

        Raises TaskDeferred, always. `kwargs` are JSON. Raises InputError when the trigger is none or the method does
        not exist, so that the mistake shows now and not when the event comes.
        """
        if not isinstance(trigger, BaseTrigger):
            raise InputError(f"task {self.task_id!r} defers to {trigger!r}, which is no BaseTrigger")
        check_json(kwargs or {}, f"task {self.task_id!r}: kwargs of defer")
        problem = self._problem_of_resuming(method_name, {"event": None, **(kwargs or {})})
        if problem is not None:
            raise InputError(f"task {self.task_id!r} defers to {problem}")
        seconds = None if timeout is None else arguments.duration(timeout, "defer timeout").total_seconds()
        raise TaskDeferred(trigger=trigger, method_name=method_name, kwargs=kwargs, timeout_seconds=seconds)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral. Raises TriggerTimeout or TriggerFailed when the wait ended without an event.

        What `defer` has checked is checked again: the code may have changed while the task waited. One that cannot go
        on in that method starts over.
        """
        kwargs = dict(next_kwargs or {})
        if next_method == FAIL_METHOD:
            error = str(kwargs.get("error") or "the trigger failed")
            if error == TRIGGER_TIMEOUT:
                raise TriggerTimeout(f"task {self.task_id!r}: the wait took longer than its timeout")
            traceback = kwargs.get("traceback")
            detail = f"\n{''.join(traceback) if isinstance(traceback, list) else traceback}" if traceback else ""
            raise TriggerFailed(f"task {self.task_id!r}: {error}{detail}")
        problem = self._problem_of_resuming(next_method, kwargs)
        if next_method == START_OVER_METHOD:
            problem = str(kwargs.get("reason"))
        if problem is None:
            return getattr(self, next_method)(context, **kwargs)
        log.warning(
            "the task starts over: its wait was begun by other code than there is now, and cannot be gone on from (%s)",
            problem,
        )
        return self.execute(context)

    def _problem_of_resuming(self, method_name: str, kwargs: Mapping[str, Any]) -> str | None:
        """Why it could not go on in `method_name(context, **kwargs)`; None when it can."""
        from inspect import signature

        method = getattr(self, method_name, None)
        if not callable(method):
            return f"method {method_name!r}, which {self.task_type} lacks"
        try:
            signature(method).bind({}, **kwargs)
        except TypeError as error:
            return f"method {method_name!r}, which does not take {', '.join(['context', *sorted(kwargs)])}: {error}"
        except ValueError:
            return None  # it is not known what it takes
        return None

    # -- values ------------------------------------------------------------------------------------------------------

    @property
    def output(self) -> XComArg:
        """A reference to what `execute` will return."""
        return XComArg(self)

    def render_template_fields(self, context: Context) -> None:
        """Replace every template field by its value in this run. Raises TemplateError."""
        from trainflow.authoring.templates import render_fields

        render_fields(self, context)

    def resolve_params(self, conf: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Params of the DAG, overridden by the task's, overridden by `conf`. Raises ParamValidationError."""
        inherited = self.dag.param_schemas if self.has_dag() else {}
        return resolve({**inherited, **self.param_schemas}, conf)

    # -- place in the graph ------------------------------------------------------------------------------------------

    @property
    def node(self) -> BaseOperator:
        return self

    @property
    def dag(self) -> DAG:
        if self.task_group is None:
            raise InputError(f"task {self.task_id!r} belongs to no DAG: create it inside `with DAG(...)` or give dag=")
        return self.task_group.dag

    def has_dag(self) -> bool:
        """Whether the task belongs to a DAG."""
        return self.task_group is not None

    @property
    def dag_id(self) -> str:
        """The id of its DAG."""
        return self.dag.dag_id

    @property
    def task_type(self) -> str:
        """What kind of operator people see."""
        return type(self).__name__

    @property
    def upstream_task_ids(self) -> frozenset[str]:
        """Ids of the tasks it waits for directly."""
        return frozenset(self.dag.graph().upstream[self.task_id])

    @property
    def downstream_task_ids(self) -> frozenset[str]:
        """Ids of the tasks that wait for it directly."""
        return frozenset(self.dag.graph().downstream[self.task_id])

    def referenced_task_ids(self) -> set[str]:
        """Ids of the tasks whose values its template fields hold. Raises DagDefinitionError for another DAG's task."""
        result: set[str] = set()
        for field in self.template_fields:
            for found in references(getattr(self, field, None)):
                if isinstance(found, str):
                    result.add(found)
                    continue
                if found.operator.has_dag() and found.operator.dag is not self.dag:
                    raise DagDefinitionError(
                        f"task {self.task_id!r} of DAG {self.dag_id!r}: {field} holds the output of "
                        f"{found.operator.task_id!r}, which is in DAG {found.operator.dag_id!r}",
                        task_ids=(self.task_id, found.operator.task_id),
                    )
                result.add(found.operator.task_id)
        return result

    def as_setup(self) -> Self:
        """Mark as a setup: prepares something that a teardown takes away again."""
        self.is_setup = True
        return self

    def as_teardown(self, *, setups: Any = None, **unexpected: Never) -> Self:
        """Mark as a teardown of `setups`: runs once everything before it is done, if the setups succeeded."""
        arguments.refuse_unexpected(f"as_teardown of task {self.task_id!r}", unexpected, ("setups",))
        if self.trigger_rule not in {TriggerRule.ALL_SUCCESS, TriggerRule.ALL_DONE_SETUP_SUCCESS}:
            raise InputError(
                f"task {self.task_id!r} is a teardown, whose trigger rule is all_done_setup_success, "
                f"not {self.trigger_rule.value}"
            )
        self.is_teardown = True
        self.trigger_rule = TriggerRule.ALL_DONE_SETUP_SUCCESS
        for each in linkables(setups if setups is not None else []):
            for operator in each.node.members():
                operator.is_setup = True
            self.set_upstream(each)
        return self

    def members(self) -> list[BaseOperator]:
        """The operator alone: an operator is a group of one where edges are concerned."""
        return [self]

    def _register(self) -> None:
        if self.task_group is not None:
            self.task_group.dag.add_task(self)


def _multiplier(value: float, owner: str) -> float:
    if isinstance(value, bool):
        return 2.0 if value else 0.0
    if not isinstance(value, int | float) or not (value == 0 or 1 <= value < 1e6):
        raise InputError(f"{owner}: retry_exponential_backoff: {value!r} is neither 0 (constant delay) nor 1 or more")
    return float(value)


def _limit(value: int | None, what: str) -> int | None:
    return None if value is None else arguments.whole_number(value, what, at_least=1)
