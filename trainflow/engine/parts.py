"""The parts of the control plane that a process can have."""

from __future__ import annotations

from enum import StrEnum


class Part(StrEnum):
    """What a process of the control plane can do."""

    SCHEDULER = "scheduler"
    TRIGGERER = "triggerer"
    DAG_PROCESSOR = "dag_processor"
    #: what leaves the project: MLflow and notifications
    MIRROR = "mirror"


ALL_PARTS = frozenset(Part)
