"""What an executor is handed for a task that is queued: a new attempt, or one that goes on after a wait."""

from __future__ import annotations

from datetime import datetime

from trainflow.identifiers import new_attempt_id
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.metadata.scheduled_queries import Candidate
from trainflow.serialization.document import DagDocument
from trainflow.settings.project import Project


def resumes_after_wait(candidate: Candidate) -> bool:
    """Whether it resumes an attempt after a wait."""
    return candidate.next_method is not None and candidate.attempt_id is not None


def workload_of(
    candidate: Candidate, document: DagDocument, source: DagSource, project: Project, now: datetime
) -> ExecuteTask:
    """The workload of a candidate, of a DAG that is described by `document` and written in `source`."""
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
    )
