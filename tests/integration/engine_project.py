"""A project whose tasks run long and wait, for tests of engines that stop and die."""

from __future__ import annotations

from collections.abc import Callable

from trainflow.settings.project import Project

WriteProject = Callable[[dict[str, str]], Project]

#: an operator that waits for the file `go` of the project
DEFERS = """
class Defers(BaseOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger(str(HERE / "go")), method_name="came")
    def came(self, context, event):
        return event
"""

PIPELINE = (
    """
import time
from datetime import timedelta
from pathlib import Path
from trainflow import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.trigger import BaseTrigger, TriggerEvent
from trainflow.operators import EmptyOperator, PythonOperator
from operators.waiting import FileTrigger, PoisonTrigger

HERE = Path(__file__).parent.parent

def waits():
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return "went on"

with DAG("waits"):
    PythonOperator(task_id="t", python_callable=waits) >> EmptyOperator(task_id="after")
"""
    + DEFERS
    + """
class DefersToPoison(Defers):
    def execute(self, context):
        self.defer(trigger=PoisonTrigger(), method_name="came")

with DAG("poisons"):
    DefersToPoison(task_id="t")

with DAG("defers"):
    Defers(task_id="t") >> EmptyOperator(task_id="after")
"""
)


WAITING = """
import asyncio
import os
import sys
from pathlib import Path
from trainflow.authoring.trigger import BaseTrigger, TriggerEvent

class FileTrigger(BaseTrigger):
    def __init__(self, path):
        super().__init__()
        self.path = path
    def serialize(self):
        return "operators.waiting.FileTrigger", {"path": self.path}
    async def run(self):
        while not await self.in_thread(Path(self.path).exists):
            await asyncio.sleep(0.01)
        yield TriggerEvent("there")

class PoisonTrigger(BaseTrigger):
    def __init__(self):
        super().__init__()
        if "trainflow.triggerer" in sys.modules:
            os._exit(7)
    def serialize(self):
        return "operators.waiting.PoisonTrigger", {}
"""


def go(project: Project) -> None:
    (project.root / "go").touch()
