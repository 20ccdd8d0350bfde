"""A worker says from time to time that it lives, and hears which of its queues take nothing new.

The API server being away changes nothing: a worker works on, and is known again when the server is back.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from trainflow.errors import describe
from trainflow.execution.http_api_client import ApiAddress
from trainflow.messages.http_protocol import (
    INSTALLATION_HEADER,
    PROTOCOL,
    PROTOCOL_HEADER,
    PROTOCOL_REFUSED,
    WORKER_OPERATION,
    HttpProblem,
    WorkerHeartbeat,
    WorkerOrders,
)
from trainflow.observability.redaction import redact_text

log = logging.getLogger(__name__)

#: how long an answer is waited for
_ANSWER_SECONDS = 10.0
_ANSWERS: msgspec.json.Decoder[WorkerOrders | HttpProblem] = msgspec.json.Decoder(WorkerOrders | HttpProblem)


class WorkerHeartbeats:
    """Says that a worker lives, in a thread of its own."""

    def __init__(
        self,
        address: ApiAddress,
        token: str | None,
        *,
        describe: Callable[[], WorkerHeartbeat],
        on_orders: Callable[[WorkerOrders], None],
        heartbeat_seconds: float,
    ) -> None:
        """`describe`: what it is now. `on_orders`: called with what it is told, when that has changed."""
        self._address = address
        self._token = token
        self._describe = describe
        self._on_orders = on_orders
        self._heartbeat_seconds = heartbeat_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="heartbeats", daemon=True)
        self._service_id: int | None = None
        self._told: tuple[list[str], str] = ([], "")
        self._complained = ""
        #: the control plane that answers, and that of the attempts which ran here
        self._answering = self._served = ""

    def begin(self) -> None:
        """Say it from now on."""
        self._thread.start()

    def note_served(self, installation: str) -> None:
        """An attempt ran here that this control plane has handed out; empty: it is not known which."""
        self._served = installation or self._served

    def end(self) -> None:
        """Say that it ends."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_ANSWER_SECONDS)

    def _go_on(self) -> None:
        self._say()
        while not self._ended.wait(self._heartbeat_seconds):
            self._say()
        self._say(ends=True)

    def _say(self, *, ends: bool = False) -> None:
        try:
            known = {"service_id": self._service_id, "installation": self._answering}
            answer = self._ask(replace(self._describe(), **known, ends=ends))
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            log.debug("the API server at %s does not hear this worker: %s", self._address.url, error)
        except Exception:
            log.exception("it cannot be said that this worker lives")
        else:
            if isinstance(answer, HttpProblem):
                self._complain(answer.message)
                if answer.error == PROTOCOL_REFUSED:
                    self._leave_all(answer.message)
            elif self._served not in ("", self._answering) and self._answering:
                self._service_id = answer.service_id
                self._complain(
                    "it is that of another installation than the one whose attempts run here: look at api.url"
                )
            else:
                self._complained = ""
                self._service_id = answer.service_id
                self._follow(answer)

    def _complain(self, problem: str) -> None:
        if problem != self._complained:
            log.warning(
                "the API server at %s does not take that this worker lives: 'trainflow fleet' does not show it, and "
                "cannot drain it: %s",
                self._address.url,
                problem,
            )
        self._complained = problem

    def _leave_all(self, reason: str) -> None:
        """Take nothing, until what is said is understood: what would be claimed here is refused for the same reason."""
        self._follow(WorkerOrders(self._service_id or 0, sorted(self._describe().queues), reason))

    def _follow(self, orders: WorkerOrders) -> None:
        told = orders.drained_queues, orders.reason
        if told == self._told:
            return
        try:
            self._on_orders(orders)
        except Exception as error:  # a broker that is away: it is told again with the next heartbeat
            log.warning("what is drained cannot be followed now, and is again: %s", redact_text(describe(error)))
        else:
            self._told = told

    def _ask(self, said: WorkerHeartbeat) -> WorkerOrders | HttpProblem:
        headers = {"Content-Type": "application/json", PROTOCOL_HEADER: str(PROTOCOL)}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = self._address.connection(_ANSWER_SECONDS)
        try:
            connection.request("POST", self._address.path_of(WORKER_OPERATION), msgspec.json.encode(said), headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if PROTOCOL_HEADER not in response.headers or response.status >= 500:
            raise http.client.HTTPException(f"HTTP {response.status}")
        self._answering = response.headers.get(INSTALLATION_HEADER, "")
        return _ANSWERS.decode(content)
