"""What a table of type `ray` holds besides `type` and `slots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from trainflow.executors.plugins import read_options
from trainflow.messages.workload import ExecuteTask
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
