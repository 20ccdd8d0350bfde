"""The execution API: what an attempt can ask of the control plane. One protocol; task code never knows who answers.

In one process it is a function call into the metadata layer (`trainflow.metadata.execution_service`); from another
host it is HTTP with a token of the attempt.
"""

from __future__ import annotations

from typing import Protocol

from trainflow.messages.requests import Reply, Request


class ExecutionApi(Protocol):
    """Answers requests of attempts. Each call is one transaction, applied or not applied as a whole."""

    def handle(self, request: Request) -> Reply:
        """Apply `request` and answer it.

        A request of a stale attempt is answered with `Refused` and changes nothing. Sending a request twice has the
        effect of sending it once. Raises only when the control plane itself is out of order; the caller then tries
        again.
        """
        ...
