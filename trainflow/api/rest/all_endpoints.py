"""Where the endpoints of the REST API are declared: in modules that are imported when a path of theirs is asked for.

A server that is asked for runs, say, has nothing in memory of what is done to chains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module

from trainflow.api.rest.endpoints import Endpoint, EndpointGroup

PREFIX = "/api/v1"
#: what Airflow's own clients ask for; the same endpoints
AIRFLOW_PREFIX = "/api/v2"

#: the paths of endpoints, below the prefix, and the modules that declare them; a path is of one of these alone
_RESOURCES = {
    r"/dags(/[^/]+(/details|/tasks(/[^/]+)?)?)?": ("dags",),
    r"/dags/[^/]+/dagRuns(/[^/]+(/(clear|wait|cancel))?)?": ("dag_runs",),
    r"/dags/[^/]+/(clearTaskInstances|dagRuns/[^/]+/taskInstances(/.*)?)": ("task_instances", "task_changes"),
    r"/(pools|importErrors|jobs|eventLogs|version|monitor)(/.*)?": ("server",),
    r"/(chains|engine)(/.*)?": ("chains", "checkpoints", "decisions"),
}
_PATHS = {modules: re.compile(pattern, re.DOTALL) for pattern, modules in _RESOURCES.items()}


def modules_of(path: str) -> tuple[str, ...]:
    """The modules that declare what is at a path below the prefix; none: there is nothing."""
    return next((modules for modules, pattern in _PATHS.items() if pattern.fullmatch(path)), ())


def endpoints_of(modules: Iterable[str]) -> tuple[Endpoint, ...]:
    """The endpoints that modules declare, which are imported for it."""
    declared = (vars(import_module(f"{__package__}.{name}")).values() for name in modules)
    groups = (each for values in declared for each in values if isinstance(each, EndpointGroup))
    return tuple(endpoint for group in groups for endpoint in group.endpoints)


def all_endpoints() -> tuple[Endpoint, ...]:
    """Every endpoint."""
    return endpoints_of(name for modules in _PATHS for name in modules)
