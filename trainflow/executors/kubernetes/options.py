"""What `[executors]` holds for a cluster."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from trainflow.executors.remote import REDELIVER_SECONDS

Seconds = Annotated[float, Meta(gt=0)]


class KubernetesOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a table of type `kubernetes` holds besides `type` and `slots`."""

    #: image of the pods, where a template or a task does not say
    image: str | None = None
    #: namespace of the pods; default: that of the context, or of the engine's own pod
    namespace: str | None = None
    #: further namespaces that tasks may name
    namespaces: list[str] = msgspec.field(default_factory=list)
    #: file of a pod that ours is laid over, relative to the project
    pod_template: str | None = None
    #: keep the workload, which claims the attempt, in a Secret that goes with the pod
    secret: bool = False
    #: file with the cluster and its credentials; default: KUBECONFIG, the engine's own pod, ~/.kube/config
    kubeconfig: str | None = None
    #: context of that file; default: the current one
    context: str | None = None
    #: what the container runs
    command: Annotated[list[str], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["trainflow", "execute-workload"]
    )
    #: seconds after which an attempt that has no pod gets another one
    redeliver_seconds: Seconds = REDELIVER_SECONDS
    #: seconds that a pod may wait for what will hardly come, such as an image that is not there, before it fails
    pending_seconds: Seconds = 300.0
    #: seconds that ranks which have a place wait for those which have none, before all places are given back; they are
    #: asked for again after as long
    places_seconds: Seconds = 900.0
    #: seconds between two looks at all pods
    reconcile_seconds: Seconds = 300.0
    #: seconds after which a watch that says nothing counts as broken
    idle_seconds: Seconds = 120.0
