"""Wait until runs have reached a state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from trainflow.authoring.trigger import BaseTrigger, TriggerEvent


class DagStateTrigger(BaseTrigger):
    """Fires once every run in `run_ids` of `dag_id` is in one of `states`; asks at once, then every `poll_interval`
    seconds. The payload is `{run_id: state}`; None is the state of a run that does not exist (any more).

    A run that is deleted while it is waited for will never reach a state: that fires as well.
    """

    def __init__(self, dag_id: str, states: list[str], run_ids: list[str], poll_interval: float = 1.0) -> None:
        super().__init__()
        self.dag_id = dag_id
        self.states = [str(state) for state in states]
        self.run_ids = list(run_ids)
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.DagStateTrigger", {
            "dag_id": self.dag_id,
            "states": self.states,
            "run_ids": self.run_ids,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        import asyncio

        # asked before the first sleep: the run may be over already when the wait is registered
        while True:
            found = {run_id: await self.ask_dag_run(self.dag_id, run_id) for run_id in self.run_ids}
            if all(state is None or state in self.states for state in found.values()):
                break
            await asyncio.sleep(self.poll_interval)
        yield TriggerEvent(found)
