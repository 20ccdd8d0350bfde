"""Which tasks of a run under way hear of a repair that is asked for now."""

from __future__ import annotations

import pytest

from trainflow.actions.chains.repair import tasks_to_clear
from trainflow.serialization.document import DagDocument, TaskDocument
from trainflow.states import TaskInstanceState

_T = TaskInstanceState
_ENDED = dict.fromkeys(("samples", "train"), _T.SUCCESS)
_ALL = {"samples", "train", "next"}
DAG = DagDocument(
    dag_id="d",
    tasks=[
        TaskDocument(task_id="samples", operator="DataCheckerOperator", role="samples"),
        TaskDocument(task_id="train", operator="TrainOperator"),
        TaskDocument(task_id="next", operator="TriggerDagRunOperator", template_fields={"trigger_dag_id": "d"}),
    ],
)


@pytest.mark.parametrize(
    ("states", "anew"),
    [
        ({}, set()),
        ({"samples": _T.SCHEDULED}, set()),
        ({"samples": _T.UP_FOR_RETRY}, set()),
        *(({"samples": state}, _ALL) for state in (_T.QUEUED, _T.RUNNING, _T.DEFERRED, _T.UP_FOR_RESCHEDULE)),
        ({"samples": _T.SUCCESS, "train": _T.RUNNING}, set()),
        ({**_ENDED, "next": _T.SCHEDULED}, set()),
        ({**_ENDED, "next": _T.QUEUED}, {"next"}),
        ({**_ENDED, "next": _T.RUNNING}, {"next"}),
        # it has triggered the next run, which has ended too; or triggers none
        ({**_ENDED, "next": _T.SUCCESS}, None),
        ({"samples": _T.SKIPPED, "train": _T.SKIPPED}, None),
        ({"samples": _T.FAILED}, None),
    ],
)
def test_repair_is_heard_by_what_reads_the_conf_later(
    states: dict[str, TaskInstanceState], anew: set[str] | None
) -> None:
    assert tasks_to_clear(DAG, states) == anew
