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

from trainflow.execution.api_address import ApiAddress
from trainflow.messages.http_protocol import PROTOCOL, PROTOCOL_HEADER, HttpProblem
from trainflow.messages.worker_api import WORKER_OPERATION, WorkerHeartbeat, WorkerOrders

log = logging.getLogger(__name__)

#: how long an answer is waited for
_ANSWER_SECONDS = 10.0
_ANSWERS: msgspec.json.Decoder[WorkerOrders | HttpProblem] = msgspec.json.Decoder(WorkerOrders | HttpProblem)


class WorkerPresence:
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
        self._thread = threading.Thread(target=self._go_on, name="presence", daemon=True)
        self._service_id: int | None = None
        self._told: tuple[list[str], str] = ([], "")
        self._complained = False

    def begin(self) -> None:
        """Say it from now on."""
        self._thread.start()

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
            answer = self._ask(replace(self._describe(), service_id=self._service_id, ends=ends))
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            log.debug("the API server at %s does not hear this worker: %s", self._address.url, error)
        except Exception:
            log.exception("it cannot be said that this worker lives")
        else:
            if isinstance(answer, HttpProblem):
                self._complain(answer)
            else:
                self._follow(answer)

    def _complain(self, problem: HttpProblem) -> None:
        if not self._complained:
            log.warning(
                "the API server at %s does not take that this worker lives: 'trainflow fleet' does not show it, and "
                "cannot drain it: %s",
                self._address.url,
                problem.message,
            )
        self._complained = True

    def _follow(self, orders: WorkerOrders) -> None:
        self._service_id, told = orders.service_id, (orders.drained_queues, orders.reason)
        if told != self._told:
            self._told = told
            self._on_orders(orders)

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
        return _ANSWERS.decode(content)
