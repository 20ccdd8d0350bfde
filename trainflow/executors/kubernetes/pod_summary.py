"""What matters of a pod that the cluster shows: a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trainflow.executors.kubernetes.pod import PodPlace, rank_of
from trainflow.settings.pod_template import CONTAINER


class PodSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a pod."""

    place: PodPlace
    #: which rank it is, and of how many
    rank: int = 0
    nodes: int = 1
    phase: str = "Pending"
    #: it was told to go
    deleting: bool = False
    #: why no node takes it, or its container does not start, in the cluster's words; "" where it does
    waits: str = ""
    #: the reason of that in one word
    waits_for: str = ""
    #: exit code of its container; None: it has not ended
    code: int | None = None
    #: reason and message of that
    end_reason: str = ""
    end_message: str = ""
    #: of the pod itself: `Evicted`, and why
    reason: str = ""
    message: str = ""
    #: its node had to get rid of it, in one word; "" otherwise
    disrupted: str = ""
    #: where it runs, and how much memory its container may have, in the cluster's words; "" where it does not say
    node: str = ""
    memory_limit: str = ""

    @property
    def in_words(self) -> str:
        """Which pod it is, for people."""
        node = f" on node {self.node}" if self.node else ""
        limit = f"memory limit {self.memory_limit}" if self.memory_limit else "no memory limit of its own"
        return f"pod {self.place.name}{node}, {limit}"

    @property
    def has_place(self) -> bool:
        """Whether a node was found for it."""
        return self.phase != "Pending" or self.waits_for not in ("", "Unschedulable", "SchedulingGated")

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more, or will."""
        return self.code is not None or self.phase in ("Succeeded", "Failed")

    @property
    def lacks_secret(self) -> bool:
        """Whether it waits for the Secret with its workload, which is made after it."""
        return self.waits_for == "CreateContainerConfigError" and f'secret "{self.place.name}" not found' in self.waits


def summary_of(pod: Mapping[str, Any]) -> PodSummary:
    """The summary of a pod as the API server sends it."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    state = _state(status)
    waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
    scheduled = conditions.get("PodScheduled") or {}
    disrupted = conditions.get("DisruptionTarget") or {}
    if scheduled.get("status") == "False":
        waiting = scheduled
    rank, nodes = rank_of(pod)
    spec = pod.get("spec") or {}
    limits = [
        ((each.get("resources") or {}).get("limits") or {}).get("memory")
        for each in spec.get("containers") or ()
        if each.get("name") == CONTAINER
    ]
    return PodSummary(
        place=PodPlace(metadata["namespace"], metadata["name"], metadata["uid"]),
        rank=rank,
        nodes=nodes,
        phase=status.get("phase") or "Pending",
        deleting=metadata.get("deletionTimestamp") is not None,
        waits=waiting.get("message") or "",
        waits_for=waiting.get("reason") or "",
        code=terminated.get("exitCode"),
        end_reason=terminated.get("reason") or "",
        end_message=terminated.get("message") or "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        disrupted=(disrupted.get("reason") or "") if disrupted.get("status") == "True" else "",
        node=spec.get("nodeName") or "",
        memory_limit=str((limits and limits[0]) or ""),
    )


def _state(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of our container, or of an init container that holds it up."""
    for each in status.get("initContainerStatuses") or ():
        state: Mapping[str, Any] = each.get("state") or {}
        if (state.get("waiting") or {}).get("reason") not in (None, "PodInitializing"):
            return {"waiting": state["waiting"]}
        if (state.get("terminated") or {}).get("exitCode"):
            return state if status.get("phase") == "Failed" else {}
    for each in status.get("containerStatuses") or ():
        if each.get("name") == CONTAINER:
            return each.get("state") or {}
    return {}
