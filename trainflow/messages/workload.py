"""What an executor is handed (everything a worker needs in order to claim and run one attempt, or to read a pipeline
file), and how the process of an attempt ended. Small and typed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

#: environment variable that holds the `ExecuteTask` of an interpreter which runs one attempt, as JSON
WORKLOAD_VARIABLE = "TRAINFLOW_WORKLOAD"
#: set where each rank of an attempt has a host of its own: which one is here, and the address of this host
RANK_VARIABLE = "TRAINFLOW_RANK"
RANK_HOST_VARIABLE = "TRAINFLOW_RANK_HOST"
#: set in a job of Ray that finds places for the ranks of its workload: a `RayPlacement` as JSON
RAY_VARIABLE = "TRAINFLOW_RAY_PLACEMENT"


class DagSource(msgspec.Struct, frozen=True):
    """Where the code of a DAG is.

    `path` is relative to the project root where it lies inside. `overrides` are the `--set key=value` of the command
    that started the pipeline; they belong to the version, because they change what is executed.
    """

    path: str
    overrides: dict[str, str] = msgspec.field(default_factory=dict)


class AttemptKey(msgspec.Struct, frozen=True):
    """Names one stay of one attempt on a worker. A report that names another one than the database holds is stale."""

    attempt_id: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[\w.:-]*$")]
    deferral_number: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process of a host. `process_started` tells it from a later one with its pid."""

    pid: int
    process_started: float


class ExecuteTask(msgspec.Struct, frozen=True, tag="execute_task"):
    """Run one attempt of one task instance."""

    key: AttemptKey
    task_instance_id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    source: DagSource
    project_root: str
    home: str
    log_path: str
    #: which executor queue (Celery queue, node pool, …) may run it
    queue: str = "default"
    priority_weight: int = 1
    #: short and worth finishing: a stopping engine waits for it instead of telling it to stop
    shielded: bool = False
    #: name of the executor in `[executors]` that it is handed to
    executor: str = "local"
    #: digest of the DAG version that its run is pinned to; empty: whatever the file gives is run
    version: str = ""
    #: where the execution API is reached over HTTP; empty: the attempt runs on the engine's host
    api_url: str = ""
    #: the control plane that hands it out: an API server of another one is told from its own by that; empty: not known
    installation: str = ""
    #: claims the attempt over HTTP, once; empty: nothing is asked for
    claim_secret: str = ""
    #: where its code comes from on another host (`workers.code`); empty: it lies at `project_root`
    code: str = ""
    #: what its task asks of the executor (`executor_config`); the executor's own
    executor_config: dict[str, Any] = msgspec.field(default_factory=dict)
    #: W3C's, of its span in the trace of its run; empty: runs are not traced
    traceparent: str = ""
    #: how many processes train together (`nodes` of its task)
    nodes: int = 1
    #: descriptors that its process is started with: connections to the other ranks, where those are on other hosts
    rank_sockets: list[int] = msgspec.field(default_factory=list)
    #: the process for which the attempt was claimed as it was queued, and which is not given it: the one that is
    #: inherits the claim
    instead_of: ProcessIdentity | None = None


class RayPlacement(msgspec.Struct, frozen=True):
    """How ranks are placed on the nodes of a Ray cluster: what each needs (Ray's names: `CPU`, `GPU`, `memory`), and
    Ray's strategy."""

    bundle: dict[str, float]
    strategy: str = "SPREAD"


class ParseFile(msgspec.Struct, frozen=True, tag="parse_file"):
    """Import one pipeline file in a child process and describe its DAGs."""

    source: DagSource
    project_root: str
    home: str


class ParsedDag(msgspec.Struct, frozen=True):
    """One DAG of a file: its id and its canonical document (see `trainflow.serialization.document`)."""

    dag_id: str
    document: msgspec.Raw


class ParseProblem(msgspec.Struct, frozen=True):
    """Why a file gave no DAG. `line` and `column` are 1-based."""

    message: str
    traceback: str = ""
    path: str | None = None
    line: int | None = None
    column: int | None = None


class ParseResult(msgspec.Struct, frozen=True, tag="read"):
    """What came out of a file. `modules`: files of the project that were imported on the way (absolute paths)."""

    dags: list[ParsedDag] = msgspec.field(default_factory=list)
    problem: ParseProblem | None = None
    modules: list[str] = msgspec.field(default_factory=list)


class ProcessExit(msgspec.Struct, frozen=True):
    """The end of an attempt's process, as the process that watched it saw it.

    Exactly one of `code`, `signal` and `reason` says how. `reason`: its end was not seen (its host or its watcher went
    away); one sentence.
    """

    code: int | None = None
    signal: int | None = None
    reason: str | None = None
    #: the kernel says that it killed it for want of memory; `where`: in what, and how much that may have
    out_of_memory: bool = False
    #: it was told to stop because its engine ends
    stopped: bool = False
    #: it was handed over; if not, nothing was lost that had begun
    delivered: bool = True
    #: what should run it says, in `reason`, that it never will: the attempt failed, whether it had begun or not
    refused: bool = False
    where: str = ""
