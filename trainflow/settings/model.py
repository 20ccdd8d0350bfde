"""Every setting: its section, unit, default and meaning.

msgspec rather than pydantic-settings: every attempt reads settings, and importing the latter takes 0.3 s.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from trainflow.identifiers import did_you_mean
from trainflow.protocols import credentials_problem, slash_problem
from trainflow.settings.openlineage import OpenLineageSettings
from trainflow.settings.telemetry import TelemetrySettings
from trainflow.settings.units import Count, Gigabytes, Seconds, SecondsOrNone, StorageOption

#: what MLflow keeps runs in; `sqlite`, `postgresql`, … may name a driver: `postgresql+psycopg`
_TRACKING_SCHEMES = frozenset({"http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks"})


#: what the metadata database may be; SQLAlchemy's driver may follow: `postgresql+psycopg`
_DATABASES = ("sqlite", "postgresql", "mysql", "mariadb")
_DATABASE_URLS = ("sqlite", "postgresql", "postgresql+psycopg", "mysql+pymysql", "mariadb+pymysql")


def _database_url_problem(url: str) -> str | None:
    """What is wrong with how the URL begins, which is all that is said of it: a password may follow."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return f"is no URL; it begins with one of {', '.join(f'{each}://' for each in _DATABASE_URLS)}"
    if scheme.partition("+")[0] in _DATABASES:
        return None
    return f"no database is called '{scheme}'{did_you_mean(scheme, _DATABASE_URLS, 'known')}"


def tracking_uri_problem(uri: str) -> str | None:
    """Say what is wrong with an MLflow tracking URI by its scheme; None when MLflow can open such a one.

    Asks nothing of a server. Schemes of MLflow plugins (entry points `mlflow.tracking_store`) count as known.
    """
    scheme, separator, rest = uri.partition(":")
    if separator and not rest.startswith("//") and scheme.partition("+")[0].lower() in _TRACKING_SCHEMES:
        return f"'{scheme}:' is not followed by '//'"
    if (problem := slash_problem(uri)) is not None and scheme.lower() != "file":
        return problem
    if uri in _TRACKING_SCHEMES or (separator and scheme.partition("+")[0].lower() in _TRACKING_SCHEMES):
        return None
    if not separator or scheme.lower() == "file":
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
            return None
        return f"'{uri}' is a folder, which MLflow refuses as a store of runs; use sqlite:///{uri}/mlflow.db"
    from importlib.metadata import entry_points

    if scheme in {each.name for each in entry_points(group="mlflow.tracking_store")}:
        return None
    return f"MLflow has no store for '{scheme}:'; known: {', '.join(sorted(_TRACKING_SCHEMES))}"


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[engine]`: the scheduler's loop."""

    #: the safety net: how often the scheduler looks although nothing woke it
    poll_seconds: Seconds = 5.0
    #: how often a living part says so
    heartbeat_seconds: Seconds = 5.0
    #: after how long without a word a part counts as dead
    dead_after_seconds: Seconds = 30.0
    #: how long an attempt that is told to stop may take to save how far it is, before it is ended by force
    stop_grace_seconds: Seconds = 30.0
    #: how often in a row infrastructure may lose the attempts of one task instance before it fails
    lost_attempts: Count = 10
    #: how long a store may take to answer before a pipeline is begun, up to five times that on a machine that is busy;
    #: 0: it is not asked
    store_check_seconds: SecondsOrNone = 2.0


class ExecutorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[executor]`: attempts, wherever they run. The executors themselves are in `[executors]`."""

    #: the executor of tasks that name none
    default: str = "local"
    #: whether retries are spent on an attempt that ended with a NameError, AttributeError, TypeError or template error,
    #: or with what trainflow refused its code, before it reported or saved any progress
    retry_programming_errors: bool = False
    #: how long a task waits for an engine that went away before a request to it fails
    outage_seconds: Seconds = 3600.0


class TriggererSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[triggerer]`: deferred waits."""

    #: how long the event loop may be silent before it is restarted
    watchdog_seconds: Seconds = 30.0
    #: threads for blocking calls of triggers (listings)
    threads: Count = 8


class DagProcessorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dag_processor]`: reading pipeline files."""

    #: how long one file may take to import
    parse_timeout_seconds: Seconds = 60.0
    #: how often the files are looked at for changes
    refresh_seconds: Seconds = 3.0
    #: folder of the pipelines, relative to the project
    folder: str = "pipelines"


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[database]`: the metadata database."""

    #: SQLAlchemy URL; the default is SQLite in the home
    url: str | None = None
    #: how many days after their end runs are deleted by the schedulers, and logs of no run by each engine, as by
    #: `trainflow db clean`; without it they stay
    keep_runs_days: Count | None = None

    def __post_init__(self) -> None:
        if self.url is not None and (problem := _database_url_problem(self.url)) is not None:
            raise ValueError(f"url: {problem}")


class ApiSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[api]`: the API server."""

    #: whether `trainflow standalone` starts it
    enabled: bool = True
    #: the address it listens on; one that other hosts reach needs `token`
    host: str = "127.0.0.1"
    #: the port it listens on
    port: Annotated[int, Meta(ge=1, le=65535)] = 8080
    #: where workers on other hosts reach it (`https://trainflow.example:8080`); the default is host and port
    url: str | None = None
    #: file with the certificate, and those between it and its authority, in PEM; with it HTTPS is spoken
    tls_cert: str | None = None
    #: file with the private key of `tls_cert`, in PEM
    tls_key: str | None = None
    #: file with the authorities that workers believe, in PEM; the default is those of the system
    tls_ca: str | None = None
    #: what people and programs have to show (`Authorization: Bearer …`), of at least 16 characters; better kept in the
    #: environment. Attempts have tokens of their own
    token: str | None = None
    #: threads that answer attempts, and nothing else
    execution_threads: Count = 8
    #: threads that answer people and programs
    rest_threads: Count = 3
    #: what a proxy in front puts before every path (`/trainflow`); it may take it away again, or not
    root_path: str = ""
    #: addresses and networks of proxies whose X-Forwarded-For, -Proto and -Host are believed (`10.0.0.0/8`)
    trusted_proxies: list[str] = []

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < 16:
            raise ValueError("token: has fewer than 16 characters; make one with: openssl rand -hex 24")
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            raise ValueError(f"{given}: is given without api.{missing}")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError("url: does not begin with http:// or https://")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ValueError("root_path: begins with a slash and does not end with one, e.g. /trainflow")
        for proxy in self.trusted_proxies:
            if not _is_network(proxy):
                raise ValueError(f"trusted_proxies: '{proxy}' is no address and no network, e.g. 10.0.0.0/8")

    @property
    def address(self) -> str:
        """Where it is reached, without a slash at the end."""
        if self.url is not None:
            return self.url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_cert else 'http'}://{host}:{self.port}"


def _is_network(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _code_problem(code: str) -> str | None:
    if (problem := slash_problem(code)) is not None:
        return problem
    if code in ("shared", "image") or code.endswith(".zip"):
        return None
    if code.startswith("git+"):
        _, at, commit = code.rpartition("@")
        return (
            None if at and commit and "/" not in commit else "a git URL ends with @COMMIT: git+https://…/repo.git@1f3a"
        )
    return f"'{code}' is none of shared, image, git+URL@COMMIT and the URL of a .zip file"


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[workers]`: attempts on other hosts."""

    #: how often a worker says that its attempt lives
    heartbeat_seconds: Seconds = 10.0
    #: how long an attempt on another host may be silent, while the API server could have heard it, before it counts as
    #: lost and its task is tried again
    lost_after_seconds: Seconds = 120.0
    #: what workers show of themselves to the API server (at least 16 characters), so that `trainflow fleet` knows them;
    #: better kept in the environment. `api.token` will do as well, and neither is needed where that is not set
    token: str | None = None
    #: where workers have the project's code from: `shared` (at the same path on every host), `image` (where the worker
    #: was started), `git+URL@COMMIT`, or the fsspec URL of a .zip file
    code: str = "shared"

    def __post_init__(self) -> None:
        if (problem := _code_problem(self.code)) is not None:
            raise ValueError(f"code: {problem}")
        if self.token is not None and len(self.token) < 16:
            raise ValueError("token: has fewer than 16 characters; make one with: openssl rand -hex 24")
        if self.lost_after_seconds < 3 * self.heartbeat_seconds:
            raise ValueError(
                f"lost_after_seconds: is less than three times workers.heartbeat_seconds ({self.heartbeat_seconds:g}): "
                "one heartbeat that comes late would end an attempt"
            )


class CheckpointSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[checkpoints]`: defaults for pipelines that name no store."""

    #: fsspec URL, or a path relative to the project
    store: str = "checkpoints"
    #: options of the fsspec file system, and `driver` (obstore, fsspec); what a pipeline gives for its own store wins
    #: key by key
    storage_options: dict[str, StorageOption] = msgspec.field(default_factory=dict)
    #: how much of the files of checkpoints in a store elsewhere is kept on this machine, in the home, for the next
    #: run; in GB, 0: nothing
    cache_gb: Gigabytes = 10.0

    def __post_init__(self) -> None:
        if (problem := slash_problem(self.store) or credentials_problem(self.store)) is not None:
            raise ValueError(f"store: {problem}")


class SampleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[samples]`: defaults for reading sample tables."""

    #: for every table; what a pipeline gives for its own table wins key by key
    storage_options: dict[str, StorageOption] = msgspec.field(default_factory=dict)


class PriceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[prices]`: what `--cost` reckons with; without any of them the list prices of S3 and Google Cloud Storage."""

    #: for 1,000 requests that write or list (PUT, COPY, POST, LIST)
    write_requests: Annotated[float, Meta(ge=0)] | None = None
    #: for 1,000 requests that read (GET, HEAD)
    read_requests: Annotated[float, Meta(ge=0)] | None = None
    #: for a GB that is kept for a month
    storage_gb_month: Annotated[float, Meta(ge=0)] | None = None
    #: what these are in
    currency: str = "USD"


class TrackingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[tracking]`: the MLflow mirror."""

    #: mirror what is trained into MLflow
    enabled: bool = True
    #: MLflow tracking URI; the default is a SQLite store in the home
    uri: str | None = None
    #: how long a `start` that has finished waits for the last deliveries
    drain_seconds: Seconds = 60.0

    def __post_init__(self) -> None:
        if self.uri is not None and (problem := tracking_uri_problem(self.uri)) is not None:
            raise ValueError(f"uri: {problem}")


class NotificationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[notifications]`: where it is told that a chain stops, goes on or promotes a checkpoint."""

    #: http(s) address that gets a POST with a JSON body; better kept in the environment: it often holds a secret
    webhook: str | None = None
    #: program and arguments that get the same JSON on standard input
    command: list[str] = msgspec.field(default_factory=list)
    #: Apprise's URLs of chats, mail and pagers (`slack://…`, `mailto://…`), which get a title and a sentence; better
    #: kept in the environment, as JSON: they hold secrets
    apprise: list[str] = msgspec.field(default_factory=list)
    #: how long a `start` that has finished waits for the last of them to be taken
    drain_seconds: Seconds = 10.0

    def __post_init__(self) -> None:
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://")):
            raise ValueError("webhook: does not begin with http:// or https://")
        for number, url in enumerate(self.apprise):
            if "://" not in url:
                raise ValueError(
                    f"apprise: entry {number + 1} is no URL: write one such as mailto://USER:PASSWORD@HOST"
                )


class LoggingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[logging]`."""

    #: what the engine's log and those of tasks hold at least
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    #: how large one log may become, in bytes: looked at with every heartbeat, the older part is put aside then
    max_bytes: Count = 64 * 1024 * 1024
    #: how many older parts of a log are kept, each of at most `max_bytes`
    backup_count: Annotated[int, Meta(ge=0)] = 2


class LogStoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[logs]`: where logs of attempts are kept beside the home in which they are written."""

    #: fsspec URL, or a path relative to the project; without it they are in the home of the engine alone
    url: str | None = None
    #: options of the fsspec file system, and `driver` (obstore, fsspec)
    storage_options: dict[str, StorageOption] = msgspec.field(default_factory=dict)
    #: how often what was added to a log is sent while its attempt runs; large logs are sent less often
    upload_seconds: Seconds = 10.0

    def __post_init__(self) -> None:
        if self.url is not None and (problem := slash_problem(self.url) or credentials_problem(self.url)) is not None:
            raise ValueError(f"url: {problem}")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `configs/trainflow.toml`."""

    engine: EngineSettings = msgspec.field(default_factory=EngineSettings)
    executor: ExecutorSettings = msgspec.field(default_factory=ExecutorSettings)
    #: by name; read with `trainflow.settings.executors`
    executors: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    triggerer: TriggererSettings = msgspec.field(default_factory=TriggererSettings)
    dag_processor: DagProcessorSettings = msgspec.field(default_factory=DagProcessorSettings)
    database: DatabaseSettings = msgspec.field(default_factory=DatabaseSettings)
    api: ApiSettings = msgspec.field(default_factory=ApiSettings)
    workers: WorkerSettings = msgspec.field(default_factory=WorkerSettings)
    checkpoints: CheckpointSettings = msgspec.field(default_factory=CheckpointSettings)
    samples: SampleSettings = msgspec.field(default_factory=SampleSettings)
    prices: PriceSettings = msgspec.field(default_factory=PriceSettings)
    tracking: TrackingSettings = msgspec.field(default_factory=TrackingSettings)
    openlineage: OpenLineageSettings = msgspec.field(default_factory=OpenLineageSettings)
    telemetry: TelemetrySettings = msgspec.field(default_factory=TelemetrySettings)
    notifications: NotificationSettings = msgspec.field(default_factory=NotificationSettings)
    logging: LoggingSettings = msgspec.field(default_factory=LoggingSettings)
    logs: LogStoreSettings = msgspec.field(default_factory=LogStoreSettings)
