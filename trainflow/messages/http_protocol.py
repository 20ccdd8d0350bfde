"""The execution API over HTTP: which request is posted where, what proves who asks, and which status means what.

    POST {PREFIX}/{operation}      the request as JSON, typed as in `execution_api`; the reply in the same form
    Authorization: Bearer …        the token of the attempt; with `start` and `meet-ranks` its claim secret
    X-Trainflow-Token: …           with `start`: the token that the worker made itself, and shows from then on
    X-Trainflow-Protocol: 2        the version that the worker speaks

A request may be sent again as often as it takes: the second time changes nothing, and has the same answer.

    200 the reply                  409 `start`: another process has this attempt
    400 not understood             410 the attempt is not (any more) the one that is waited for: stop
    401 no such token              413 larger than any request of its kind
    403 another attempt's token    422 understood, and cannot be satisfied
    404 no such operation          429, 5xx: not now, try again

A worker, which has no database, says of itself what it is, again and again, and is told what to do:

    POST {PREFIX}/worker           a `WorkerHeartbeat`; the answer is a `WorkerOrders`
    Authorization: Bearer …        `workers.token`, or `api.token`; where neither is set: nothing
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from trainflow.messages import execution_api
from trainflow.messages.execution_api import AppendLog, Heartbeat, MeetRanks, Outcome, ProcessEnded, Start

PREFIX = "/execution/v1"
PROTOCOL_HEADER = "X-Trainflow-Protocol"
TOKEN_HEADER = "X-Trainflow-Token"
#: of each answer: the control plane that gives it. Where it is another one than that which handed out the attempt, the
#: answer says nothing of the attempt
INSTALLATION_HEADER = "X-Trainflow-Installation"
#: the version of the protocol that is spoken here, and the oldest that is still understood: workers are upgraded after
#: the API server, so the version before it is
PROTOCOL = 2
OLDEST_PROTOCOL = 1

#: what secrets begin with: known by that to the masker of logs
CLAIM_PREFIX, TOKEN_PREFIX = "tfclaim_", "tftoken_"
#: digits of a version number; a longer one is none
_MOST_DIGITS = 6
#: characters that a token has at least: its worker makes it, and it must not be guessed
SHORTEST_TOKEN = 40

_KILOBYTE, _MEGABYTE = 1024, 1024 * 1024
#: bytes of a log in one request
LOG_CHUNK = 256 * _KILOBYTE
#: an outcome holds XComs
_MOST_WITH_XCOMS = 256 * _MEGABYTE


class Operation(NamedTuple):
    """One kind of request. `most_bytes`: a body that is larger is refused."""

    name: str
    request: type[Any]
    summary: str
    most_bytes: int = _MEGABYTE


OPERATIONS = (
    Operation("start", Start, "Claim the attempt, and exchange its claim secret for a token.", 64 * _KILOBYTE),
    Operation("meet-ranks", MeetRanks, "Find the first of the ranks that an attempt waits for.", 4 * _KILOBYTE),
    Operation("heartbeat", Heartbeat, "Say that the attempt lives.", 4 * _KILOBYTE),
    Operation("progress", execution_api.Progress, "Say how far the attempt is."),
    Operation("rows-saved", execution_api.RowsSaved, "Say how much of the split is saved.", 4 * _KILOBYTE),
    Operation("log", AppendLog, "Add to the log of the attempt.", 8 * LOG_CHUNK),
    Operation("get-xcom", execution_api.GetXCom, "Read XComs of a run."),
    Operation("trigger-run", execution_api.TriggerRun, "Create a run now.", _MOST_WITH_XCOMS),
    Operation("dag-run-state", execution_api.GetDagRunState, "Ask where a run is."),
    Operation("tracking-run", execution_api.GetTrackingRun, "Ask for the MLflow run that mirrors the run."),
    Operation("process-ended", ProcessEnded, "Say how the process ended that said nothing itself.", 16 * _KILOBYTE),
    Operation("outcome", Outcome, "Report how the attempt ended.", _MOST_WITH_XCOMS),
)
#: what a worker asks that has no token yet: it shows the claim secret
BEFORE_CLAIM: frozenset[type[Any]] = frozenset({Start, MeetRanks})
BY_REQUEST = {operation.request: operation for operation in OPERATIONS}


class HttpProblem(msgspec.Struct, frozen=True, tag="problem"):
    """Why a request was not answered by a reply. `error` is a word for programs, `message` a sentence for people."""

    error: str
    message: str


def too_large(operation: Operation) -> str:
    """What is said of a request whose body is larger than any of its kind may be."""
    return f"{operation.name}: the request is larger than {operation.most_bytes} bytes"


#: the word of a problem that is about this version
PROTOCOL_REFUSED = "ProtocolVersion"


def protocol_problem(spoken: str | None) -> str | None:
    """What is wrong with the version that a worker speaks; None: it is understood."""
    if spoken is None:
        return f"the header {PROTOCOL_HEADER} is missing: this server speaks version {PROTOCOL}"
    if not (spoken.isascii() and spoken.isdigit() and len(spoken) <= _MOST_DIGITS):
        return f"{PROTOCOL_HEADER}: '{spoken[:20]}' is no number; this server speaks version {PROTOCOL}"
    if int(spoken) > PROTOCOL:
        return (
            f"the worker speaks version {int(spoken)} of the protocol, this API server {PROTOCOL}: "
            "upgrade the API server (and the scheduler) before the workers"
        )
    if int(spoken) < OLDEST_PROTOCOL:
        return (
            f"the worker speaks version {int(spoken)} of the protocol, this API server no version before "
            f"{OLDEST_PROTOCOL}: upgrade the worker"
        )
    return None


def is_named(etag: str, if_none_match: str | None) -> bool:
    """Whether an entity tag is among those that a request has already: compared weakly, as RFC 9110 has it, since a
    proxy that compresses an answer makes its tag a weak one; `*` is any."""
    known = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    return etag in known or "*" in known


#: below the prefix of the execution API
WORKER_OPERATION = "worker"
#: of a heartbeat, in bytes
HEARTBEAT_BYTES = 64 * 1024

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
