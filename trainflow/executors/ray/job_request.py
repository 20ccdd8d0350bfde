"""What a Ray job is told: its command, what it needs, and where what claims its attempt is.

Ray lists the command, the metadata and the environment of every job to all who reach its dashboard. So the workload,
which holds a secret, is in neither: it is a package that the head keeps, and the job names it.

`RayOptions` is what a table of type `ray` holds besides `type` and `slots`.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from trainflow.executors.plugins import read_options
from trainflow.messages.workload import RAY_VARIABLE, WORKLOAD_VARIABLE, AttemptKey, ExecuteTask, RayPlacement
from trainflow.settings.executor_config import RayResources
from trainflow.settings.executors import ExecutorSettingsError

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class RayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the module."""

    #: of the dashboard of the head, which answers the Jobs API: http://HOST:8265
    address: str
    #: where the cluster wants one; better kept in the environment
    token: str = ""
    #: authorities to believe, in PEM
    ca_file: str | None = None
    #: what runs a workload on a node
    command: str = "trainflow execute-workload"
    #: where the project is on a node; None: as `workers.code` says
    project: str | None = None
    #: what each job needs
    needs: RayResources = RayResources()
    #: how ranks that train together are placed: SPREAD over as many nodes as there are, STRICT_SPREAD on a node each
    placement: Literal["SPREAD", "STRICT_SPREAD", "PACK", "STRICT_PACK"] = "SPREAD"
    #: what those of a queue need, over that
    queues: dict[str, RayResources] = msgspec.field(default_factory=dict)
    #: Ray's `runtime_env` of each job
    runtime_env: dict[str, Any] = msgspec.field(default_factory=dict)
    #: seconds between two looks at the jobs
    poll_seconds: _Seconds = 5.0
    #: seconds a job that is stopped may take; None: the grace of attempts and a little more
    stop_wait_seconds: _Seconds | None = None

    def needs_of(self, workload: ExecuteTask) -> RayResources:
        """What the job of an attempt needs: its task says, over that its queue, over that this table."""
        asked = msgspec.convert(workload.executor_config, RayResources)
        return asked.over(self.queues.get(workload.queue, RayResources()).over(self.needs))


def ray_options(name: str, options: Mapping[str, Any]) -> RayOptions:
    """The options of an executor of this kind. Raises ExecutorSettingsError for those that are wrong."""
    read = read_options(name, options, RayOptions)
    problem = address_problem(read.address)
    if problem is not None:
        raise ExecutorSettingsError(f"executors.{name}.address: {problem}", executor=name, key="address")
    return read


def address_problem(address: str) -> str | None:
    """What is wrong with the address of a dashboard; None: nothing is."""
    parts = urlsplit(address)
    if parts.scheme == "ray":
        return (
            "this is the address of Ray's client; the Jobs API is at the dashboard: write one such as http://HOST:8265"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "it is no URL of a dashboard: write one such as http://HOST:8265"
    try:
        _ = parts.port
    except ValueError:
        return "its port must be a whole number from 0 to 65535"
    return None


#: file of a package
WORKLOAD_FILE = "workload.json"
#: how long the supervisor may take to deliver the last words, beyond the grace of the attempt
_LAST_SECONDS = 15
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


class Package(NamedTuple):
    """A file that the head keeps."""

    name: str
    content: bytes


def submission_id(key: AttemptKey) -> str:
    """The id of the job of an attempt: the same attempt is the same job, however often it is submitted."""
    return f"{key.attempt_id}-{key.deferral_number}"


def package_of(workload: ExecuteTask) -> Package:
    """The package with a workload in it. Its name says nothing of its content that could be guessed."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        file = zipfile.ZipInfo(WORKLOAD_FILE, _LONG_AGO)
        file.external_attr = 0o600 << 16
        archive.writestr(file, msgspec.json.encode(workload))
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    return Package(f"_ray_pkg_{digest[:32]}.zip", content.getvalue())


def request_of(
    workload: ExecuteTask, options: RayOptions, package: Package | None, *, grace_seconds: float
) -> dict[str, Any]:
    """The request that submits its job. `package` None: `runtime_env` has a working folder of its own, and the workload
    is in the environment."""
    wait = options.stop_wait_seconds
    variables = {
        # Ray kills a job that is told to stop after 3 s: a save takes longer
        "RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(grace_seconds + _LAST_SECONDS if wait is None else wait)),
        **options.runtime_env.get("env_vars", {}),
    }
    environment = {**options.runtime_env, "env_vars": variables}
    command = f"exec {options.command}"
    if package is not None:
        environment["working_dir"] = f"gcs://{package.name}"
        command += f" --file {WORKLOAD_FILE}"
    else:
        variables[WORKLOAD_VARIABLE] = msgspec.json.encode(workload).decode()
    if options.project is not None:
        command += f" --project '{options.project}'"
    said = msgspec.structs.asdict(options.needs_of(workload))
    needs = {name: value for name, value in said.items() if value is not None}
    if workload.nodes > 1:
        # the job itself needs nothing: it finds a place for each rank
        variables[RAY_VARIABLE] = msgspec.json.encode(RayPlacement(bundle_of(needs), options.placement)).decode()
        needs = {}
    asked = {f"entrypoint_{name}": value for name, value in needs.items()}
    return {
        "entrypoint": command,
        "submission_id": submission_id(workload.key),
        "runtime_env": environment,
        "metadata": {
            "dag_id": workload.dag_id,
            "run_id": workload.run_id,
            "task_id": workload.task_id,
            "attempt_id": workload.key.attempt_id,
        },
        **asked,
    }


def bundle_of(needs: Mapping[str, Any]) -> dict[str, float]:
    """What a rank needs, in the words of placement groups. A rank for which nothing is asked has a processor."""
    named = {"CPU": needs.get("num_cpus", 1), "GPU": needs.get("num_gpus"), "memory": needs.get("memory")}
    return {name: value for name, value in {**named, **needs.get("resources", {})}.items() if value}


def may_package(options: RayOptions) -> bool:
    """Whether the workload can be kept out of what Ray lists."""
    return "working_dir" not in options.runtime_env
