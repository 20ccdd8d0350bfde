"""Choose which scheduled tasks may be queued, under slots, pools and limits, and make what the executor is handed for
them. Pure, but for the id of a new attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from trainflow.humanize import agreeing, counted
from trainflow.identifiers import new_attempt_id
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.metadata.queries.drain_queries import DrainKind, Drains
from trainflow.metadata.queries.in_flight import InFlightTask
from trainflow.metadata.queries.pool_queries import PoolSlots
from trainflow.metadata.queries.queueing_lock import MOST_BESIDE, UNSEEN
from trainflow.metadata.queries.scheduled_queries import Candidate
from trainflow.scheduler.executor_slots import ExecutorSlots, Refusal
from trainflow.serialization.document import DagDocument
from trainflow.settings.project import Project

#: pool slots without a limit
UNLIMITED = -1


class Limits:
    """What is free, counted from what is held; `take` is called for each choice."""

    def __init__(
        self,
        *,
        executors: ExecutorSlots,
        pools: Mapping[str, PoolSlots],
        held: Iterable[InFlightTask],
        documents: Callable[[Candidate], DagDocument],
        drains: Drains | None = None,
    ) -> None:
        self.executors = executors
        self._drains = drains or Drains()
        self._documents = documents
        self._pools = {
            name: float("inf") if pool.slots == UNLIMITED else pool.slots - pool.used_by_deferred
            for name, pool in pools.items()
        }
        self._of_run: Counter[int] = Counter()
        self._of_task_in_run: Counter[tuple[int, str]] = Counter()
        #: (dag id, task id) → active; asked for once, counted up from then on
        self._of_task_in_dag: dict[tuple[str, str], int] = {}
        #: pool slots of what was chosen
        self._chosen = 0
        self._held = list(held)
        for task in self._held:
            self._of_run[task.dag_run_id] += 1
            self._of_task_in_run[task.dag_run_id, task.task_id] += 1
            if task.pool in self._pools:
                self._pools[task.pool] -= task.pool_slots

    @property
    def widest(self) -> int:
        """How many tasks of one run are held, at most."""
        return max(self._of_run.values(), default=0)

    def full_pools(self) -> list[str]:
        """Pools with no slot left: nothing of them needs to be looked at."""
        return sorted(name for name, free in self._pools.items() if free <= 0)

    def refusal(self, candidate: Candidate, active_in_dag: Callable[[Candidate], int]) -> Refusal | None:
        """Why this one may not be queued now, None if it may."""
        drain = self._drains.of_task(candidate.dag_id, candidate.queue)
        if drain is not None:
            return Refusal(drain.sentence)
        no_slot = self.executors.refusal(candidate)
        if no_slot is not None:
            return no_slot
        if candidate.pool not in self._pools:
            return Refusal(f"pool '{candidate.pool}' does not exist")
        used_up = self._used_up(candidate, active_in_dag)
        return None if used_up is None else Refusal(used_up, counted=True)

    def _used_up(self, candidate: Candidate, active_in_dag: Callable[[Candidate], int]) -> str | None:
        free = self._pools[candidate.pool]
        if free < candidate.pool_slots:
            return (
                f"pool '{candidate.pool}' has {counted(int(max(0, free)), 'free slot')}, "
                f"{candidate.pool_slots} {agreeing(candidate.pool_slots, 'is', 'are')} needed"
            )
        document = self._documents(candidate)
        if self._of_run[candidate.dag_run_id] >= document.max_active_tasks:
            return f"max_active_tasks ({document.max_active_tasks}) of the run are active"
        task = document.task(candidate.task_id)
        if task is None:
            return None
        in_run = self._of_task_in_run[candidate.dag_run_id, candidate.task_id]
        if task.max_active_tis_per_dagrun is not None and in_run >= task.max_active_tis_per_dagrun:
            return f"max_active_tis_per_dagrun ({task.max_active_tis_per_dagrun}) is reached"
        most = task.max_active_tis_per_dag
        if most is not None and self._in_dag(candidate, active_in_dag) >= most:
            return f"max_active_tis_per_dag ({most}) is reached"
        return None

    def is_near(self, candidate: Candidate, active_in_dag: Callable[[Candidate], int]) -> bool:
        """Whether one that nothing refuses could be too much with what other schedulers take at the same time (see
        `queueing_lock`). A transaction beside others leaves it to a transaction that does so alone."""
        if self._chosen + max(candidate.pool_slots, 1) > MOST_BESIDE:
            return True
        if self._pools[candidate.pool] - candidate.pool_slots < UNSEEN:
            return True
        if self.executors.free_for_all(candidate) - 1 < UNSEEN:
            return True
        document = self._documents(candidate)
        # of one run others take no more than there are tasks
        of_run = min(UNSEEN, len(document.tasks))
        if document.max_active_tasks - self._of_run[candidate.dag_run_id] - 1 < of_run:
            return True
        task = document.task(candidate.task_id)
        if task is None:
            return False
        if task.max_active_tis_per_dagrun is not None and candidate.map_index >= 0:
            return True
        if task.max_active_tis_per_dag is None:
            return False
        return task.max_active_tis_per_dag - self._in_dag(candidate, active_in_dag) - 1 < UNSEEN

    def _in_dag(self, candidate: Candidate, active_in_dag: Callable[[Candidate], int]) -> int:
        name = (candidate.dag_id, candidate.task_id)
        if name not in self._of_task_in_dag:
            self._of_task_in_dag[name] = active_in_dag(candidate)
        return self._of_task_in_dag[name]

    def run_is_full(self, candidate: Candidate) -> bool:
        """No other task of the same run can be queued either."""
        if self._drains.get(DrainKind.DAG, candidate.dag_id) is not None:
            return True
        return self._of_run[candidate.dag_run_id] >= self._documents(candidate).max_active_tasks

    def take(self, candidate: Candidate) -> None:
        """Count a choice."""
        self.executors.take(candidate)
        self._chosen += max(candidate.pool_slots, 1)
        self._pools[candidate.pool] -= candidate.pool_slots
        self._of_run[candidate.dag_run_id] += 1
        self._of_task_in_run[candidate.dag_run_id, candidate.task_id] += 1
        name = (candidate.dag_id, candidate.task_id)
        if name in self._of_task_in_dag:
            self._of_task_in_dag[name] += 1


class QueueingChoice(NamedTuple):
    """Task instances to queue, in order, and why others were passed over (task instance id → sentence). `near`: it
    matters what other schedulers take or give back at the same time."""

    chosen: list[Candidate]
    refused: dict[int, str]
    near: bool = False


def choose(
    candidates: Sequence[Candidate],
    limits: Limits,
    active_in_dag: Callable[[Candidate], int],
    *,
    beside: bool = False,
) -> QueueingChoice:
    """Go through candidates in their order and take each that no limit refuses.

    One that is refused does not hold back those behind it: a full pool stops only its own tasks. `beside`: other
    schedulers choose at the same time. Then it ends where a limit is near: no other one is to overtake that.
    """
    chosen: list[Candidate] = []
    refused: dict[int, str] = {}
    near = False
    # who has waited already and holds what it waited for goes first
    for candidate in sorted(candidates, key=lambda c: c.next_method is None):
        refusal = limits.refusal(candidate, active_in_dag)
        if refusal is not None:
            refused[candidate.id] = refusal.sentence
            near = near or (beside and refusal.counted)
            continue
        if limits.is_near(candidate, active_in_dag):
            near = True
            if beside:
                break
        limits.take(candidate)
        chosen.append(candidate)
    return QueueingChoice(chosen, refused, near)


def resumes_after_wait(candidate: Candidate) -> bool:
    """Whether it resumes an attempt after a wait."""
    return candidate.next_method is not None and candidate.attempt_id is not None


def workload_of(
    candidate: Candidate,
    document: DagDocument,
    source: DagSource,
    project: Project,
    now: datetime,
    *,
    executor: str,
    is_traced: bool = False,
) -> ExecuteTask:
    """The workload of a candidate, of a DAG that is described by `document` and written in `source`. `is_traced`: its
    run is told to a collector of traces."""
    if candidate.attempt_id is not None and resumes_after_wait(candidate):
        key = AttemptKey(candidate.attempt_id, candidate.deferral_number)
    else:
        key = AttemptKey(new_attempt_id(now), 0)
    log = project.home.attempt_log(candidate.dag_id, candidate.run_id, candidate.task_id, key.attempt_id)
    task = document.task(candidate.task_id)
    return ExecuteTask(
        key=key,
        task_instance_id=candidate.id,
        dag_id=candidate.dag_id,
        run_id=candidate.run_id,
        task_id=candidate.task_id,
        map_index=candidate.map_index,
        source=source,
        project_root=str(project.root),
        home=str(project.home.path),
        log_path=str(log),
        queue=candidate.queue,
        priority_weight=candidate.priority_weight,
        shielded=task.shielded if task is not None else False,
        executor=executor,
        executor_config=task.executor_config if task is not None else {},
        nodes=task.nodes if task is not None else 1,
        traceparent=_traceparent(candidate, key) if is_traced else "",
    )


def _traceparent(candidate: Candidate, key: AttemptKey) -> str:
    # of those who trace alone
    from trainflow.telemetry.trace_context import TracedRun, parent_of

    parent = parent_of(candidate.traceparent)
    run = TracedRun(candidate.dag_id, candidate.run_id, candidate.clear_number, parent)
    return run.traceparent(key.attempt_id)
