"""What a run says when its samples stop the chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainflow.errors import SampleCheckFailed, SampleDamaged, SampleGap
from trainflow.messages.notice import XCOM_STOPPED, Cause

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance


def note_bad_samples(ti: TaskInstance, error: SampleGap | SampleCheckFailed | SampleDamaged) -> None:
    """Leave a notice, should the run fail of it: of the same partition the same notice."""
    cause = Cause.GAP if isinstance(error, SampleGap) else Cause.CHECK
    partition = error.partition.isoformat() if error.partition else None
    told = {
        "cause": cause.value,
        "key": f"{cause.value} {partition}",
        "sentence": str(error),
        "facts": {"partition": partition},
    }
    ti.xcom_push(XCOM_STOPPED, told)
