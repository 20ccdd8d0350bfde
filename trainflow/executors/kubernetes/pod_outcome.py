"""What is seen of an attempt's pod, and what that means: the table of states, as a pure function.

| pod | attempt | means |
|---|---|---|
| none, or gone | not begun | make one again, at no cost |
| gone | begun, said nothing | lost |
| waits for its own Secret | not begun | that is about to be made; after a while make both again, at no cost |
| waits | not begun | say why; where it is for what will hardly come, it fails after a while |
| ended with 0 | begun, said nothing | failed: exited 0 and said nothing |
| ended | not begun | lost: no code of the task has run |
| evicted, its node lost | begun | lost |
| out of memory, other exit codes | begun | what the process of an attempt on one machine would be |
| any | has said how it ended | over |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from trainflow.executors.kubernetes.pod import PodPlace, rank_of
from trainflow.messages.workload import ProcessExit
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


#: reasons for which a container waits that hardly pass by themselves
HOPELESS = frozenset(
    {
        *("CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull"),
        *("ImageInspectError", "ImagePullBackOff", "InvalidImageName", "RunContainerError"),
    }
)
_IN_WORDS = {
    "ContainerCreating": "its container is being made",
    "PodInitializing": "its init containers run",
    "Unschedulable": "no node takes it",
    "ErrImagePull": "its image cannot be pulled",
    "ImagePullBackOff": "its image cannot be pulled",
    "InvalidImageName": "its image has no valid name",
    "CreateContainerConfigError": "what its container needs is not there",
    "CreateContainerError": "its container cannot be made",
    "SchedulingGated": "it is held back by a scheduling gate",
}
_NODE_IS_GONE = frozenset({"NodeLost", "NodeShutdown", "Shutdown", "Terminated"})
_MESSAGE_CHARACTERS = 500
_SIGNALS = 128
#: what a shell, and Kubernetes, give as exit code of what a signal has ended
_LARGEST_SIGNAL = 64


class Step(Enum):
    """What is to be done."""

    WAIT = "wait"
    MAKE = "make"
    #: ranks wait for each other's places: they are to be free for others for a while
    GIVE_BACK = "give back"
    END = "end"
    OVER = "over"


class AttemptFacts(NamedTuple):
    """What is known of an attempt. Times in seconds."""

    begun: bool
    #: it has said how it ended
    reported: bool
    #: a pod of it was seen
    seen: bool
    #: since a pod was asked for
    asked_for: float
    #: since its pod waits for what will hardly come; 0: it does not
    hopeless_for: float
    #: how long a pod that is asked for may not be there, and one that is there may wait for what will hardly come
    appears_within: float
    hopeless_within: float


class PodVerdict(NamedTuple):
    """What a pod means. `note`: for people, of one that waits."""

    step: Step
    note: str | None = None
    exit: ProcessExit | None = None


def judge(pod: PodSummary | None, facts: AttemptFacts) -> PodVerdict:
    """Judge one attempt by its pod; None: there is none."""
    if facts.reported:
        return PodVerdict(Step.OVER)
    if pod is None:
        return _without_pod(facts)
    if pod.ended:
        return PodVerdict(Step.END, exit=exit_of(pod) if facts.begun else _not_begun(pod))
    if facts.begun:
        return PodVerdict(Step.WAIT)
    if pod.lacks_secret:
        # what was to make it has ended in between, or was not let
        late = facts.asked_for >= facts.appears_within
        return PodVerdict(Step.MAKE if late else Step.WAIT, note=waits(pod))
    if pod.waits_for in HOPELESS and facts.hopeless_for >= facts.hopeless_within:
        reason = f"its pod never ran: {waits(pod)}"
        return PodVerdict(Step.END, exit=ProcessExit(reason=reason, refused=True))
    return PodVerdict(Step.WAIT, note=waits(pod))


def _without_pod(facts: AttemptFacts) -> PodVerdict:
    if not facts.begun:
        return PodVerdict(Step.MAKE if facts.seen or facts.asked_for >= facts.appears_within else Step.WAIT)
    if facts.seen:
        return PodVerdict(Step.END, exit=ProcessExit(reason="its pod was deleted before it reported an outcome"))
    return PodVerdict(Step.WAIT)


def waits(pod: PodSummary) -> str:
    """Why a pod that was asked for does not run its attempt yet, for people."""
    if pod.deleting:
        return f"pod {pod.place.name} is being deleted"
    if pod.phase == "Running" and not pod.waits_for:
        return f"pod {pod.place.name} runs and has not claimed it yet: can it reach the API server?"
    if pod.lacks_secret:
        return f"pod {pod.place.name} waits: the Secret with its workload is being made"
    why = _IN_WORDS.get(pod.waits_for, pod.waits_for)
    said = f"pod {pod.place.name} waits{f': {why}' if why else ''}"
    return f"{said} ({_line(pod.waits)})" if pod.waits else said


def _not_begun(pod: PodSummary) -> ProcessExit:
    how = _disruption(pod) or _how_it_ended(pod)
    return ProcessExit(reason=f"its pod ended before it began: {how}")


def exit_of(pod: PodSummary) -> ProcessExit:
    """How the process of an attempt ended that had begun and said nothing."""
    disruption = _disruption(pod)
    if disruption is not None:
        return ProcessExit(reason=disruption)
    if pod.end_reason == "OOMKilled":
        return ProcessExit(signal=9, out_of_memory=True, where=pod.in_words)
    if pod.code is None:
        return ProcessExit(code=0) if pod.phase == "Succeeded" else ProcessExit(reason=_how_it_ended(pod))
    if _SIGNALS < pod.code <= _SIGNALS + _LARGEST_SIGNAL:
        return ProcessExit(signal=pod.code - _SIGNALS)
    return ProcessExit(code=pod.code)


def cause_of(pod: PodSummary) -> str | None:
    """Why the pod of a rank has ended, where another one says that it has; None: the cluster knows no more of it."""
    if pod.end_reason == "OOMKilled":
        return f"its container was killed because memory ran out (OOMKilled: {pod.in_words})"
    return _disruption(pod)


def _disruption(pod: PodSummary) -> str | None:
    """What the cluster did to a pod; None: nothing."""
    if pod.reason == "Evicted":
        return f"its pod was evicted{_told(pod.message)}"
    if pod.reason in _NODE_IS_GONE or pod.disrupted == "DeletionByTaintManager":
        return f"the node of its pod was lost or shut down{_told(pod.message)}"
    if pod.reason in ("Preempting", "UnexpectedAdmissionError") or pod.disrupted:
        return f"the cluster ended its pod ({pod.reason or pod.disrupted}){_told(pod.message)}"
    return None


def _how_it_ended(pod: PodSummary) -> str:
    if pod.code is None:
        return f"{pod.reason or pod.phase}{_told(pod.message)}"
    reason = "" if pod.end_reason in ("", "Error", "Completed") else f", {pod.end_reason}"
    return f"exit code {pod.code}{reason}{_told(pod.end_message)}"


def _told(message: str) -> str:
    return f": {_line(message)}" if message.strip() else ""


def _line(message: str) -> str:
    """The end of a message, on one line: that is where a log says what was wrong."""
    line = " ".join(message.split()).rstrip(".")
    return line if len(line) <= _MESSAGE_CHARACTERS else f"…{line[-_MESSAGE_CHARACTERS:]}"
