"""TriggerDagRunOperator: start a run of a DAG - this one again, the next stage, or any other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, NoReturn

import msgspec

from trainflow.authoring.arguments import NOTSET, ArgNotSet
from trainflow.authoring.context import Context, TaskInstance
from trainflow.authoring.operator import BaseOperator
from trainflow.clock import ensure_utc
from trainflow.errors import DagRunAlreadyExists, FailException, InputError, SkipException, TaskError
from trainflow.identifiers import canonical_json, check_name, triggered_run_id
from trainflow.messages.execution_api import TriggeredRun
from trainflow.states import DagRunState

XCOM_RUN_ID = "trigger_run_id"


class TriggerDagRunOperator(BaseOperator):
    """Trigger a run of `trigger_dag_id`.

    The run's id is `trigger_run_id`, by default a pure function of this run and task: a task that is tried again, or
    cleared, names the run that it has triggered already, and the same run from the same task is the same run - nothing
    happens twice. A run of that id that another task made raises DagRunAlreadyExists, or skips this task with
    `skip_when_already_exists`.

    A triggered run has no logical date unless `logical_date` is given (Airflow: the time of triggering): a chain is
    ordered by its ledger, and a date of the clock would be another one at each try. `run_after`: it starts no sooner.
    `when`: an XCom or a template; what is false or empty ends this task skipped, and nothing is triggered. `conf` is
    plain JSON; `carry_conf` names entries of this run's own conf that the triggered run is given, too.
    `reset_dag_run`: clear a run of that id that exists. `fail_when_dag_is_paused`: fail rather than leave the run
    waiting. `note` is shown beside the run.

    `wait_for_completion`: wait until the run is in one of `allowed_states`, fail when it is in one of `failed_states`.
    The wait holds a slot, or none with `deferrable=True`. Without `wait_for_completion` nothing ever waits or defers:
    the run is created in the same transaction that ends this task. `poke_interval` is in seconds; the default is one
    (Airflow: sixty), since asking costs less than a millisecond.

    XCom `trigger_run_id` holds the run's id.
    """

    template_fields: ClassVar[Sequence[str]] = (
        "trigger_dag_id",
        "trigger_run_id",
        "logical_date",
        "run_after",
        "conf",
        "when",
        "wait_for_completion",
        "skip_when_already_exists",
        "note",
    )

    def __init__(
        self,
        *,
        trigger_dag_id: str,
        trigger_run_id: str | None = None,
        conf: dict[str, Any] | None = None,
        carry_conf: Sequence[str] = (),
        when: Any = True,
        logical_date: str | datetime | ArgNotSet | None = NOTSET,
        run_after: str | datetime | ArgNotSet | None = NOTSET,
        reset_dag_run: bool = False,
        wait_for_completion: bool = False,
        poke_interval: float | timedelta = 1.0,
        allowed_states: Sequence[str | DagRunState] | None = None,
        failed_states: Sequence[str | DagRunState] | None = None,
        skip_when_already_exists: bool = False,
        fail_when_dag_is_paused: bool = False,
        note: str | None = None,
        deferrable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.trigger_dag_id = trigger_dag_id
        self.trigger_run_id = trigger_run_id
        self.conf = conf
        self.carry_conf = tuple(carry_conf)
        self.when = when
        self.logical_date = None if isinstance(logical_date, ArgNotSet) else logical_date
        self.run_after = None if isinstance(run_after, ArgNotSet) else run_after
        self.reset_dag_run = reset_dag_run
        self.wait_for_completion = wait_for_completion
        self.poke_interval = _seconds(poke_interval)
        self.allowed_states = _states("allowed_states", allowed_states, [DagRunState.SUCCESS])
        self.failed_states = _states("failed_states", failed_states, [DagRunState.FAILED])
        self.skip_when_already_exists = skip_when_already_exists
        self.fail_when_dag_is_paused = fail_when_dag_is_paused
        self.note = note
        self.deferrable = deferrable

    def execute(self, context: Context) -> None:
        ti = context["ti"]
        if not _truth(self.when):
            raise SkipException(f"no run of {self.trigger_dag_id} is due")
        own = context["dag_run"].conf
        run = self._run(ti, {name: own[name] for name in self.carry_conf if name in own})
        ti.xcom_push(XCOM_RUN_ID, run.run_id)
        self._trigger(ti, self._with_reset(ti, run))
        if not _truth(self.wait_for_completion):
            ti.log.info("triggers run %s of %s", run.run_id, run.dag_id)
            return
        ti.set_note(f"waits for run {run.run_id} of {run.dag_id}")
        if self.deferrable:
            self._defer(run)
        self._poke(ti, run)

    def execute_complete(self, context: Context, event: dict[str, str | None]) -> None:
        """Resume after the deferred wait; `event` is DagStateTrigger's payload."""
        for run_id, state in event.items():
            self._judge(run_id, state)

    def _run(self, ti: TaskInstance, carried: dict[str, Any]) -> TriggeredRun:
        run_id = self.trigger_run_id or triggered_run_id(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
        return TriggeredRun(
            dag_id=check_name(self.trigger_dag_id, "DAG"),
            run_id=run_id,
            conf={**carried, **_checked_conf(self.conf)},
            logical_date=_moment("logical_date", self.logical_date),
            run_after=_moment("run_after", self.run_after),
            reset_dag_run=self.reset_dag_run,
            skip_when_already_exists=_truth(self.skip_when_already_exists),
            fail_when_dag_is_paused=self.fail_when_dag_is_paused,
            note=self.note,
        )

    def _with_reset(self, ti: TaskInstance, run: TriggeredRun) -> TriggeredRun:
        """A try that follows a failed run of ours clears it: waiting for it again would only see it failed again."""
        if self.trigger_run_id is not None or not _truth(self.wait_for_completion):
            return run
        failed = ti.get_dag_run_state(run.dag_id, run.run_id) in self.failed_states
        return msgspec.structs.replace(run, reset_dag_run=run.reset_dag_run or failed)

    def _trigger(self, ti: TaskInstance, run: TriggeredRun) -> None:
        """Fire-and-forget travels with the outcome; what has to know the answer before the task ends asks now."""
        now = _truth(self.wait_for_completion) or run.skip_when_already_exists or run.fail_when_dag_is_paused
        try:
            ti.trigger_dag_run(run, now=now)
        except DagRunAlreadyExists as error:
            if run.skip_when_already_exists:
                raise SkipException(f"run {run.run_id} of {run.dag_id} exists already") from error
            raise

    def _defer(self, run: TriggeredRun) -> NoReturn:
        from trainflow.operators.triggers.dag_state import DagStateTrigger

        self.defer(
            trigger=DagStateTrigger(
                dag_id=run.dag_id,
                states=[*self.allowed_states, *self.failed_states],
                run_ids=[run.run_id],
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
        )

    def _poke(self, ti: TaskInstance, run: TriggeredRun) -> None:
        awaited = {*self.allowed_states, *self.failed_states, None}
        while (state := ti.get_dag_run_state(run.dag_id, run.run_id)) not in awaited:
            ti.sleep(self.poke_interval)
        self._judge(run.run_id, state)

    def _judge(self, run_id: str, state: str | None) -> None:
        # failing is ordinary, so that retries count: the next try waits for the same run, which may have been cleared
        if state is None:
            raise TaskError(f"run {run_id} of {self.trigger_dag_id} is gone: it was deleted while it was waited for")
        if state in self.failed_states:
            raise TaskError(f"run {run_id} of {self.trigger_dag_id} ended as {state}")


def _checked_conf(conf: Any) -> dict[str, Any]:
    if conf is None:
        return {}
    if not isinstance(conf, dict):
        raise FailException(f"conf is a {type(conf).__name__}: it must be a dict")
    try:
        canonical_json(conf)
    except (TypeError, ValueError) as error:
        raise FailException(f"conf has no form in JSON: {error}") from None
    return conf


def _states(name: str, given: Sequence[str | DagRunState] | None, default: list[DagRunState]) -> list[str]:
    states = default if given is None else list(given)
    try:
        return [DagRunState(state).value for state in states]
    except ValueError:
        known = ", ".join(state.value for state in DagRunState)
        raise InputError(f"{name}={given!r}: the states of a run are {known}") from None


def _moment(name: str, value: str | datetime | None) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        return ensure_utc(datetime.fromisoformat(value) if isinstance(value, str) else value)
    except ValueError as error:
        raise FailException(f"{name}={value!r}: {error}") from None


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _truth(value: Any) -> bool:
    """A templated flag arrives as text."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "false", "none", "no", "0")
    return bool(value)
