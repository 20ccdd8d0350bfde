"""EmptyOperator: a task that does nothing, to tie others together."""

from __future__ import annotations

from trainflow.authoring.context import Context
from trainflow.authoring.operator import BaseOperator


class EmptyOperator(BaseOperator):
    """Operator that does nothing and succeeds."""

    def execute(self, context: Context) -> None:
        return None
