"""Where MLflow is: its URI for this project, the command that serves its web page. No MLflow import: the command line
uses it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from trainflow.bootstrap import interpreter
from trainflow.errors import InputError
from trainflow.observability.redaction import redact_text
from trainflow.settings.home import Home
from trainflow.settings.model import TrackingSettings
from trainflow.tracking.deliveries import OpenStore


@dataclass(frozen=True)
class ServerCommand:
    """How to start MLflow's server. The store is in the environment, because its URI may hold a password and
    arguments are visible to every user of the machine."""

    argv: list[str]
    environment: dict[str, str]
    url: str
    #: what makes the home's own store first, None when it is another's: a server that is stopped while it makes one
    #: leaves half of it behind
    make_store: list[str] | None = None


def tracking_uri(settings: TrackingSettings, home: Home) -> str:
    """Where MLflow keeps this project's runs: the setting, or SQLite in the home.

    SQLite and not a folder of files: MLflow 3.17 refuses the file store unless it is asked to allow it.
    """
    return settings.uri or f"sqlite:///{home.mlflow_database.absolute()}"


def target(settings: TrackingSettings, home: Home) -> OpenStore:
    """What to open a deliverer with."""
    root = None if settings.uri else home.mlflow_artifacts.absolute().as_uri()
    lock = str(home.mlflow_database.absolute().with_name("deliverer.lock"))
    return OpenStore(tracking_uri(settings, home), artifact_root=root, lock_file=lock)


def server_command(settings: TrackingSettings, home: Home, *, host: str, port: int) -> ServerCommand:
    """The command behind `trainflow mlflow`. Raises InputError when the tracking URI is a server already."""
    uri = tracking_uri(settings, home)
    if urlsplit(uri).scheme in ("http", "https"):
        raise InputError(
            f"tracking.uri is an MLflow server already: open {redact_text(uri)} in a browser "
            "(or remove tracking.uri from the settings to keep runs in this project's home)"
        )
    home.mlflow_database.parent.mkdir(parents=True, exist_ok=True)
    argv = interpreter("mlflow", "server", "--host", host, "--port", str(port), "--workers", "1")
    environment = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": home.mlflow_artifacts.absolute().as_uri(),
        # background jobs serve MLflow's judges of language models; with them the server is 10 processes and 2.2 GiB
        # instead of 2 and 0.5
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # as the deliverer
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    own = target(settings, home)
    make = None
    if own.artifact_root is not None and own.lock_file is not None and not home.mlflow_database.exists():
        arguments = [own.tracking_uri, own.artifact_root, own.lock_file]
        make = interpreter("trainflow.tracking.local_store_init", *arguments)
    return ServerCommand(argv, environment, server_url(host, port), make)


def chain_url(server: str, experiment_id: str, run_id: str) -> str:
    """The page with the curves of a chain, by its parent run; the page of training, not that of language models."""
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}/model-metrics?workflowType=machine_learning"


def server_url(host: str, port: int) -> str:
    """The address to open in a browser; a server that listens everywhere is reached on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
