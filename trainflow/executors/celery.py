"""Hand attempts to Celery workers: a message is a chance to claim, and nothing else.

It is acknowledged as soon as a worker begins with it, and it has no result. On Redis, where a worker takes no more than
it has slots for, it is gone when it is taken. With late acknowledgement Redis delivers a long task a second time at its
visibility time-out, and RabbitMQ at its consumer time-out, while the first still runs; and a child that is killed is
not run again. Here the claim decides who runs, heartbeats what is lost, and a message that is lost or lies with a
worker that is busy is sent again by the engine. So no time-out of a broker matters.

Celery is imported by the thread that sends, never by the engine's way. `celery_worker` is the other end.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

import msgspec

from trainflow.errors import EngineError, describe
from trainflow.executors.executor import ExecutorHost
from trainflow.executors.plugins import read_options
from trainflow.executors.remote import REDELIVER_SECONDS, RemoteExecutor
from trainflow.identifiers import did_you_mean
from trainflow.messages.workload import AttemptKey, ExecuteTask
from trainflow.observability.redaction import redact_text
from trainflow.settings.executors import ExecutorSettingsError

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger(__name__)

#: name of the Celery task
TASK = "trainflow.execute_workload"
#: how long a broker may take to answer before it counts as away
_BROKER_SECONDS = 5.0
#: schemes of brokers that Kombu is not asked about
_USUAL = frozenset({"amqp", "amqps", "memory", "pyamqp", "redis", "rediss", "sentinel", "sqs"})
#: those whose URL has one host and its port
_WITH_PORT = frozenset({"amqp", "amqps", "pyamqp", "redis", "rediss", "sentinel"})
#: how long messages that are being sent are waited for when the engine ends
_LAST_SECONDS = 5.0


class CeleryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a table of type `celery` holds besides `type` and `slots`."""

    #: URL of the broker: redis://…, amqp://…; better kept in the environment: it often holds a password
    broker: str
    #: seconds after which an attempt that no worker has begun is sent again
    redeliver_seconds: Annotated[float, msgspec.Meta(gt=0)] = REDELIVER_SECONDS
    #: Celery's `broker_transport_options`
    transport_options: dict[str, Any] = msgspec.field(default_factory=dict)


def celery_options(name: str, options: Mapping[str, Any]) -> CeleryOptions:
    """The options of an executor of this kind. Raises ExecutorSettingsError for those that are wrong, EngineError
    without Celery."""
    read = read_options(name, options, CeleryOptions)
    installed = importlib.util.find_spec("celery") is not None
    problem = broker_problem(read.broker, _transports if installed else None)
    if problem is not None:
        raise ExecutorSettingsError(f"executors.{name}.broker: {problem}", executor=name, key="broker")
    if not installed:
        raise EngineError(f"executors.{name}: Celery is not installed here: pip install 'trainflow[celery]'")
    return read


def broker_problem(broker: str, transports: Callable[[], Collection[str]] | None) -> str | None:
    """What is wrong with the URL of a broker, without its secrets; None: nothing is. `transports`: those that Kombu
    knows, asked for where the scheme is not one of the usual; None: that is not known here."""
    for url in broker.split(";"):
        scheme, separator, rest = url.partition("://")
        if not separator or not scheme:
            return "it is no URL: write one such as redis://HOST:6379/0 or amqp://USER@HOST//"
        transport = scheme.partition("+")[0]
        if transport not in _USUAL and transports is not None and transport not in (known := transports()):
            return f"Celery has no transport '{transport}'{did_you_mean(transport, sorted(known), 'known')}"
        if scheme in _WITH_PORT and not _has_good_port(rest):
            return "its port must be a whole number from 0 to 65535"
    return None


def _has_good_port(rest: str) -> bool:
    try:
        _ = urlsplit(f"//{rest}").port
    except ValueError:
        return False
    return True


def _transports() -> Collection[str]:
    from kombu.transport import TRANSPORT_ALIASES  # slow to import

    names: dict[str, str] = TRANSPORT_ALIASES
    return names.keys()


def is_redis(broker: str) -> bool:
    """Whether a broker is Redis, or speaks like it."""
    return broker.startswith(("redis", "valkey", "sentinel"))


def celery_app(options: CeleryOptions) -> Celery:
    """The Celery application of both ends."""
    from celery import Celery

    app = Celery("trainflow", broker=options.broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=is_redis(options.broker),
        worker_enable_remote_control=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        # a worker whose broker is away for an hour is there when that is back: Celery's would have ended
        broker_connection_max_retries=float("inf"),
        broker_connection_timeout=_BROKER_SECONDS,
        broker_transport_options={
            "socket_timeout": _BROKER_SECONDS,
            "socket_connect_timeout": _BROKER_SECONDS,
            **options.transport_options,
        }
        if is_redis(options.broker)
        else options.transport_options,
    )
    return app


def send_message(app: Celery, workload: ExecuteTask, text: str | None = None) -> None:
    """Send the message of an attempt; `text`: as it came, which may hold what another build has written. Raises what
    the broker's client raises."""
    app.send_task(
        TASK,
        args=[text or msgspec.json.encode(workload).decode()],
        task_id=message_id(workload.key),
        queue=workload.queue,
        ignore_result=True,
        retry=False,
        # what monitors show: the message itself holds a secret
        argsrepr=f"({workload.dag_id} {workload.run_id} {workload.task_id})",
    )


class CeleryExecutor(RemoteExecutor):
    """`type = "celery"`."""

    tells_later: ClassVar[bool] = True

    def __init__(self, options: CeleryOptions) -> None:
        super().__init__(redeliver_seconds=options.redeliver_seconds)
        self._options = options
        self._sender: _Sender | None = None

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        return cls(celery_options(name, options))

    def start(self, host: ExecutorHost) -> None:
        super().start(host)
        self._sender = _Sender(self._options, self._failed, self._recovered)

    def deliver(self, workload: ExecuteTask) -> None:
        assert self._sender is not None
        self._sender.send(workload)

    def _failed(self, workload: ExecuteTask, reason: str) -> None:
        """Give back what could not be sent. Called by the thread that sends."""
        self._host.reactor.call_soon(lambda: self.not_delivered(workload, reason))

    def _recovered(self, workload: ExecuteTask) -> None:
        """Say that one was sent, after one that could not be. Called by the thread that sends."""
        self._host.reactor.call_soon(lambda: self.delivered_again(workload))

    def withdraw(self, key: AttemptKey) -> None:
        assert self._sender is not None
        self._sender.revoke(key)

    def end(self, grace: timedelta) -> None:
        if self._sender is not None:
            self._sender.end()
        super().end(grace)


def message_id(key: AttemptKey) -> str:
    """The id of the message of an attempt."""
    return f"{key.attempt_id}.{key.deferral_number}"


class _Sender:
    """Sends messages in a thread of its own: a broker that does not answer keeps nothing waiting but messages."""

    def __init__(
        self,
        options: CeleryOptions,
        on_failure: Callable[[ExecuteTask, str], None],
        on_recovery: Callable[[ExecuteTask], None],
    ) -> None:
        """`on_recovery`: called with the first that is sent after one that could not be."""
        self._options = options
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._away = False
        #: it was said that a message could not be called off
        self._complained = False
        self._work: SimpleQueue[ExecuteTask | AttemptKey | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="celery", daemon=True)
        self._thread.start()

    def send(self, workload: ExecuteTask) -> None:
        """Send a message; `on_failure` is called when it could not be."""
        self._work.put(workload)

    def revoke(self, key: AttemptKey) -> None:
        """Have a message dropped that no worker has begun with, as far as that can be had."""
        self._work.put(key)

    def end(self) -> None:
        """Send what is left, for a while."""
        self._work.put(None)
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        app = None
        while (work := self._work.get()) is not None:
            try:
                if app is None:  # here: what cannot be imported is said, and no message waits for ever
                    app = celery_app(self._options)
                if isinstance(work, AttemptKey):
                    app.control.revoke(message_id(work))
                    self._complained = False
                else:
                    send_message(app, work)
                    if self._away:
                        self._away = False
                        self._on_recovery(work)
            except Exception as error:
                said = describe(error).replace(self._options.broker, redact_text(self._options.broker))
                said = f"the broker {redact_text(self._options.broker)} does not answer: {said}"
                if isinstance(work, ExecuteTask):
                    self._away = True
                    self._on_failure(work, said)
                elif not self._complained:
                    # its worker is told with the next heartbeat all the same, or when it claims the attempt
                    self._complained = True
                    log.warning("messages of attempts that are not waited for cannot be called off: %s", said)
        if app is not None:
            app.close()
