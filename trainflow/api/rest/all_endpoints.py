"""Every endpoint of the REST API."""

from __future__ import annotations

from trainflow.api.rest.chains import chains
from trainflow.api.rest.checkpoints import checkpoints
from trainflow.api.rest.dag_runs import own_runs, runs
from trainflow.api.rest.dags import dags
from trainflow.api.rest.decisions import decisions, engine
from trainflow.api.rest.endpoints import Endpoint
from trainflow.api.rest.server import control_plane, pools
from trainflow.api.rest.task_changes import changes
from trainflow.api.rest.task_instances import tasks

PREFIX = "/api/v1"
#: what Airflow's own clients ask for; the same endpoints
AIRFLOW_PREFIX = "/api/v2"

_RESOURCES = (dags, runs, own_runs, tasks, changes, pools, control_plane, chains, checkpoints, decisions, engine)

ENDPOINTS: tuple[Endpoint, ...] = tuple(each for resource in _RESOURCES for each in resource.endpoints)
AIRFLOWS: tuple[Endpoint, ...] = tuple(each for each in ENDPOINTS if each.is_airflows)
