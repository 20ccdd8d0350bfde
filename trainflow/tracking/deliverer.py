"""The deliverer's process: `python -m trainflow.tracking.deliverer FD`. Reads deliveries, answers each, ends when its
input closes.

A process of its own because importing MLflow takes about two seconds of CPU and 200 MiB: neither a task nor the
engine's lock has to pay for it. It never sees the metadata database; what it is not told it does not know.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from trainflow.clock import Clock, SystemClock
from trainflow.errors import ProtocolError
from trainflow.messages.frames import receive, send
from trainflow.observability.process_lifetime import watch_parent
from trainflow.observability.redaction import redact_text
from trainflow.tracking.deliveries import (
    Deliver,
    Delivered,
    Delivery,
    DeliveryReply,
    NotDelivered,
    OpenStore,
    ToDeliverer,
)
from trainflow.tracking.local_store_init import create_local_store, exclusive, quiet_mlflow

if TYPE_CHECKING:
    from trainflow.tracking.mlflow_runs import Mirrored
import re

log = logging.getLogger("trainflow.tracking.deliverer")  # __name__ is __main__ here

#: after MLflow could not be reached, everything that waits already is refused unasked for this long
GIVE_UP_SECONDS = 5.0
#: the engine tries again by itself (`deadlines.backoff_seconds`), so MLflow's client shall not: its own defaults are 7
#: retries of up to 120 s each
HTTP_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
#: MLflow was reached and says no: perhaps because of an id we remember (something was deleted by hand), or because
#: another process wrote at the same time. Worth one more try at once, from scratch
_REFUSED = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
#: the content itself is refused: no use in trying again later
_HOPELESS = {"INVALID_PARAMETER_VALUE"}
#: what the text of an error holds → what people call it; the first that is found counts. MLflow wraps urllib3's errors
#: into its own and keeps nothing but their text
_REASONS = (
    (("connection refused",), "connection refused"),
    (("name or service not known", "getaddrinfo", "nameresolutionerror", "nodename nor servname"), "no such host"),
    (("certificate", "sslerror", "ssl:"), "its TLS certificate is not accepted"),
    (("timed out", "timeout"), "no answer in time"),
    (("no route to host", "network is unreachable"), "no route to it"),
    (("connection reset", "remotedisconnected", "connection aborted", "broken pipe"), "it closed the connection"),
)
_STATUS = re.compile(r"(?:error code|status(?: code)?|response code|too many) (\d{3})\b")
_URL = re.compile(r"https?://[^\s'\"/@]*(?:@)?[^\s'\"/]+")
_POOL = re.compile(r"(HTTPS?)Connection(?:Pool)?\(host='([^']+)', port=(\d+)\)")


class _StoreNotOpened(Exception):
    """The store did not open or did not answer its first question: an outage, whatever code the error carries.

    MLflow gives a wrong URI and a refused write the same error code (INVALID_PARAMETER_VALUE).
    """


class DeliveryTarget(Protocol):
    """What `DeliveryHandler` needs of a mirror (`mlflow_runs.Mirror`)."""

    def apply(self, delivery: Delivery) -> Mirrored:
        """Write one delivery; the same twice changes nothing. Raises what MLflow raises."""
        ...

    def forget(self) -> None:
        """Drop what is remembered of runs: the store may have changed."""
        ...


class DeliveryHandler:
    """Turns deliveries into answers: opens the mirror when first needed, classifies what goes wrong. Never raises."""

    def __init__(self, open_mirror: Callable[[], DeliveryTarget], clock: Clock) -> None:
        self._open_mirror = open_mirror
        self._clock = clock
        self._mirror: DeliveryTarget | None = None
        self._given_up: tuple[float, str] | None = None

    def answer(self, request: Deliver) -> DeliveryReply:
        """Deliver it and say how that went."""
        if self._given_up is not None:
            since, reason = self._given_up
            if self._clock.monotonic() - since < GIVE_UP_SECONDS:
                return NotDelivered(request.delivery_id, reason)
            self._given_up = None
        try:
            mirrored = self._apply(request.delivery)
        except Exception as error:
            return self._failure(request.delivery_id, error)
        return Delivered(request.delivery_id, mirrored.run_id)

    def _apply(self, delivery: Delivery) -> Mirrored:
        mirror = self._opened()
        try:
            return mirror.apply(delivery)
        except Exception as error:
            mirror.forget()
            if _code(error) not in _REFUSED:
                raise
        return mirror.apply(delivery)

    def _opened(self) -> DeliveryTarget:
        if self._mirror is None:
            try:
                self._mirror = self._open_mirror()
            except Exception as error:
                raise _StoreNotOpened from error
        return self._mirror

    def _failure(self, delivery_id: int, error: Exception) -> NotDelivered:
        closed = isinstance(error, _StoreNotOpened)
        if isinstance(error.__cause__, Exception) and closed:
            error = error.__cause__
        reason = describe(error)
        hopeless = not closed and _is_refusal(error)
        if closed or (not hopeless and _code(error) not in _REFUSED):
            self._given_up = (self._clock.monotonic(), reason)
        log.warning("delivery %d failed: %s", delivery_id, reason)
        log.debug("delivery %d failed", delivery_id, exc_info=error)
        return NotDelivered(delivery_id, reason, retry=not hopeless)


def describe(error: Exception) -> str:
    """One line of at most 500 characters, without secrets."""
    said = redact_text(str(error)).strip()
    unreached = unreachable(said)
    if unreached is not None:
        return unreached[:500]
    lines = said.splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]


def unreachable(said: str) -> str | None:
    """Why MLflow's server could not be reached and what to look at, by what an exception says; None where that is
    something else."""
    found = said.lower()
    reason = next((words for needles, words in _REASONS if any(needle in found for needle in needles)), None)
    where = _where(said)
    if where is None:
        return None
    if reason is not None:
        return f"{where} cannot be reached ({reason}): is MLflow running there, and is tracking.uri right?"
    status = _STATUS.search(found)
    if status is None:
        return None
    if status[1] in ("401", "403"):
        return f"{where} refuses the login ({status[1]}): check MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN"
    return f"{where} answers with error {status[1]}: look into the log of that server" if status[1] >= "500" else None


def _where(said: str) -> str | None:
    pool = _POOL.search(said)
    if pool is not None:
        return f"{pool[1].lower()}://{pool[2]}:{pool[3]}"
    url = _URL.search(said)
    return url[0] if url is not None else None


def _is_refusal(error: Exception) -> bool:
    """Whether MLflow was reached and refuses this content, now and at any later time.

    A proxy that answers with a page of HTML shows as a decoding error, which is a ValueError too: an outage.
    """
    if _code(error):
        return _code(error) in _HOPELESS
    return isinstance(error, TypeError | ValueError) and not isinstance(error, json.JSONDecodeError | UnicodeError)


def _code(error: Exception) -> str:
    return str(getattr(error, "error_code", ""))


def serve(connection: socket.socket, clock: Clock) -> None:
    """Answer until the input closes. Raises ProtocolError when it closes inside a frame or is not for us."""
    decoder = msgspec.json.Decoder(ToDeliverer)
    first = receive(connection)
    if first is None:
        return
    target = decoder.decode(first)
    if not isinstance(target, OpenStore):
        raise ProtocolError(f"the first frame to a deliverer must be Open, not {type(target).__name__}")
    with exclusive(target.lock_file):
        handler = DeliveryHandler(lambda: open_mirror(target), clock)
        while (frame := receive(connection)) is not None:
            request = decoder.decode(frame)
            if not isinstance(request, Deliver):
                raise ProtocolError("a deliverer is opened once")
            send(connection, msgspec.json.encode(handler.answer(request)))


def open_mirror(target: OpenStore) -> DeliveryTarget:
    """Import MLflow and open its store; the home's own is made when it is not there (seconds, once).

    Asks one question, so that a store that cannot be used is told from a delivery that is refused. Raises what MLflow
    raises.
    """
    os.environ.update(HTTP_ENVIRONMENT)
    from mlflow.tracking.client import MlflowClient

    from trainflow.tracking.mlflow_runs import Mirror

    quiet_mlflow()
    if "://" in target.tracking_uri and not target.tracking_uri.startswith(("http:", "https:")):
        _one_attempt_to_connect()
    if target.artifact_root is not None:  # the home's own
        create_local_store(target.tracking_uri, target.artifact_root)
    client = MlflowClient(tracking_uri=target.tracking_uri)
    client.search_experiments(max_results=1)
    return Mirror(client, target.artifact_root)


def _one_attempt_to_connect() -> None:
    """MLflow tries ten times to reach a database, sleeping more than a minute in all; the engine's backoff does that
    without holding a process."""
    from mlflow.store.db import utils

    if hasattr(utils, "MAX_RETRY_COUNT"):
        utils.MAX_RETRY_COUNT = 1


def main(arguments: list[str]) -> int:
    """The process: the connection is the inherited file descriptor named by the only argument."""
    from trainflow.observability.logs import configure_logging

    configure_logging("INFO")
    warnings.simplefilter("ignore")  # MLflow's own deprecations are nothing a reader of the engine's log can act on
    with socket.socket(fileno=int(arguments[0])) as connection:
        try:
            serve(connection, SystemClock())
        except (ProtocolError, ConnectionError) as error:
            log.info("the engine went away: %s", error)
            return 1
    return 0


if __name__ == "__main__":
    # by a thread: the one of the engine that starts deliverers does not live as long as the engine
    watch_parent(os.getppid())
    exit_code = main(sys.argv[1:])
    logging.shutdown()
    os._exit(exit_code)  # every write is acknowledged already; tearing down what MLflow imported takes half a second
