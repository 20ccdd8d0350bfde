"""Triggers that end or block the event loop while they run: their task fails, and the other waits go on."""

from __future__ import annotations

import pytest

from tests.integration.engine_project import DEFERS, WAITING, WriteProject
from tests.support.embedded import embedded, quiet
from trainflow.settings.project import Project

PIPELINE = (
    """
from pathlib import Path
from trainflow import DAG
from trainflow.authoring.operator import BaseOperator
from operators.waiting import BadTrigger, FileTrigger

HERE = Path(__file__).parent.parent

"""
    + DEFERS
    + """
class DefersToBad(Defers):
    def execute(self, context):
        self.defer(trigger=BadTrigger(context["dag_run"].conf["kind"]), method_name="came")

with DAG("good", max_active_runs=50):
    Defers(task_id="t")
with DAG("bad"):
    DefersToBad(task_id="t")
"""
)
BAD = """
import ctypes
import signal
import threading

def crash():
    ctypes.string_at(0)

def block():
    while True:
        pass

async def leave():
    await asyncio.sleep(0.01)
    sys.exit(3)

class BadTrigger(BaseTrigger):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
    def serialize(self):
        return "operators.waiting.BadTrigger", {"kind": self.kind}
    async def run(self):
        await asyncio.sleep(0.02)
        match self.kind:
            case "crash":
                crash()
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "block":
                block()
            case "exit in a task":
                await asyncio.create_task(leave())
            case "exit in a thread":
                await self.in_thread(os._exit, 5)
            case "exit in to_thread":
                await asyncio.to_thread(os._exit, 6)
            case "exit in a callback":
                asyncio.get_running_loop().call_later(0.01, sys.exit, 7)
            case "crash in a thread of its own":
                threading.Timer(0.01, crash).start()
        await asyncio.sleep(1000)
        yield TriggerEvent()
"""


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project(
        {"pipelines/p.py": PIPELINE, "operators/__init__.py": "", "operators/waiting.py": WAITING + BAD}
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("crash", "3 times the triggers' event loop ended (signal 11, SIGSEGV) while it ran this trigger"),
        ("kill", "ended (signal 9, SIGKILL)"),
        ("block", "did not turn any more"),
        ("exit in a task", "a task of the trigger raised SystemExit(3)"),
        ("exit in a thread", "ended (exit code 5)"),
        ("exit in to_thread", "ended (exit code 6)"),
        ("exit in a callback", "ended (exit code 7)"),
        ("crash in a thread of its own", "ended (signal 11, SIGSEGV)"),
    ],
)
def test_event_loop_ended_by_trigger_fails_its_task_and_no_other(project: Project, kind: str, why: str) -> None:
    settings = quiet(triggerer={"watchdog_seconds": 1.0}, engine={"poll_seconds": 0.1})
    with embedded(project, settings) as engine:
        assert engine.load() is None
        good = [engine.trigger("good") for _ in range(5)]
        engine.until(lambda: all(engine.states(run).get("t") == "deferred" for run in good))
        bad = engine.trigger("bad", {"kind": kind})
        assert engine.finish(bad) == "failed"
        assert why in engine.tasks(bad)["t"].problem
        assert {engine.states(run)["t"] for run in good} == {"deferred"}
        (project.root / "go").touch()
        assert [engine.finish(run) for run in good] == ["success"] * 5
        assert [len(engine.attempts(run, "t")) for run in good] == [1] * 5
