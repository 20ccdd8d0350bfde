"""What a worker says of itself to the API server, and what it is told: it has no database.

POST {PREFIX}/worker          a `WorkerHeartbeat`, again and again; the answer is a `WorkerOrders`
Authorization: Bearer …       `workers.token`, or `api.token`; where neither is set: nothing
"""

from __future__ import annotations

from typing import Annotated

import msgspec

#: below the prefix of the execution API
WORKER_OPERATION = "worker"
#: of a heartbeat, in bytes
MOST_BYTES = 64 * 1024

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=250, pattern=r"^[^\x00-\x1f]*$")]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class WorkerHeartbeat(msgspec.Struct, frozen=True, tag="worker_heartbeat"):
    """A worker lives. `name`: what it is drained by. `service_id`: what the first answer said; None: it is new."""

    name: _Name
    hostname: _Name
    pid: _Count
    process_started: Annotated[float, msgspec.Meta(ge=0, le=1e18)]
    version: Annotated[str, msgspec.Meta(max_length=50, pattern=r"^[^\x00-\x1f]*$")]
    #: the executor of `[executors]` whose messages it takes
    executor: _Name
    queues: Annotated[list[_Name], msgspec.Meta(max_length=200)]
    slots: _Count
    #: slots with an attempt
    in_use: _Count = 0
    service_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] | None = None
    #: the control plane that has said `service_id`: another one has never heard of it
    installation: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[^\x00-\x1f]*$")] = ""
    #: it takes nothing more, and is about to end
    ends: bool = False


class WorkerOrders(msgspec.Struct, frozen=True, tag="worker_orders"):
    """What a worker is told. `drained_queues`: those of its queues that take nothing new; `reason`: why, for people."""

    service_id: int
    drained_queues: list[str] = []
    reason: str = ""
