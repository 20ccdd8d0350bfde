"""What pipeline files and modules do to the warm process of the local executor when they are imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest

from tests.integration.executor_hosts import results, started_executor
from trainflow.executors.local import LocalExecutor
from trainflow.messages.workload import ExecuteTask, ProcessExit
from trainflow.settings.project import MARKER
from trainflow.testing.executor_contract import Host, workload

POOL = """
from concurrent.futures import ThreadPoolExecutor
POOL = ThreadPoolExecutor(1)
POOL.submit(len, "").result()
"""
#: a thread that Python knows nothing of
NATIVE = """
import ctypes
libc = ctypes.CDLL(None)
libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
"""
WHO = """
from trainflow import DAG
from trainflow.operators import PythonOperator

def who():
    import os
    return os.getppid()

with DAG("contract"):
    PythonOperator(task_id="who", python_callable=who)
"""

READS = """
import sys
from trainflow import DAG, BaseOperator

class Reads(BaseOperator):
    warm_modules = ("pyarrow.parquet", "fine")

    def warm_up(self, project_root):  # called by the attempt
        self.found = [name in sys.modules for name in self.warm_modules]

    def execute(self, context):
        return self.found

with DAG("contract"):
    Reads(task_id="reads")
"""


@pytest.fixture
def executor(host: Host) -> Iterator[LocalExecutor]:
    with started_executor(host) as executor:
        yield executor


def test_file_that_kills_its_importer_harms_only_itself(host: Host, executor: LocalExecutor) -> None:
    (host.project.root / "pipelines/poison.py").write_text("import os\nos._exit(3)\n")

    def poison(number: int) -> ExecuteTask:
        return workload(host, "poison", number, path="pipelines/poison.py")

    for number in range(4):
        executor.queue_workload(poison(number))
        executor.queue_workload(workload(host, "says", number))
        host.until(lambda number=number: len(host.exits) >= 2 * number + 2)
    ends = [exit for key, exit in host.exits if key.attempt_id.startswith("poison")]
    # twice the warm worker died of it; after that it ran by itself, and its own exit code is known
    assert [exit.code for exit in ends] == [None, None, 3, 3]
    executor.queue_workload(workload(host, "says", 9))
    host.until(lambda: "says9" in results(host))


@pytest.mark.parametrize(
    "line",
    ["import sys; sys.exit(3)", "import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)", "while True: pass"],
    ids=["sys.exit", "os._exit", "killed", "hangs"],
)
def test_module_of_task_that_cannot_be_imported_harms_no_warm_worker(
    host: Host, executor: LocalExecutor, line: str
) -> None:
    """As that of a training function: only the task's own attempt imports it."""
    (host.project.root / "broken.py").write_text(f"{line}\ndef work():\n    pass\n")
    text = WHO.replace("python_callable=who", "python_callable='broken:work'")
    (host.project.root / "pipelines/breaks.py").write_text(text)
    executor.queue_workload(workload(host, "says"))
    host.until(lambda: len(host.exits) == 1)
    worker = executor.warm_process
    executor.queue_workload(workload(host, "who", path="pipelines/breaks.py"))
    host.until(lambda: len(host.api.claims) == 2)
    for number in range(1, 4):
        executor.queue_workload(workload(host, "says", number))
        host.until(lambda number=number: f"says{number}" in results(host))
    assert executor.warm_process is worker


def test_module_of_task_is_imported_by_warm_worker_once_an_attempt_has(host: Host, executor: LocalExecutor) -> None:
    (host.project.root / "fine.py").write_text("import os\nHERE = os.getpid()\ndef work():\n    return HERE\n")
    text = WHO.replace("python_callable=who", "python_callable='fine:work'")
    (host.project.root / "pipelines/works.py").write_text(text)
    assert executor.warm_process is not None
    for number in range(20):
        executor.queue_workload(workload(host, "who", number, path="pipelines/works.py"))
        host.until(lambda number=number: f"who{number}" in results(host))
        if results(host)[f"who{number}"] == executor.warm_process.pid:
            break
    found = results(host)
    assert found["who0"] != executor.warm_process.pid
    assert found[f"who{number}"] == executor.warm_process.pid


def test_trusted_module_of_task_is_imported_before_its_first_attempt_is_forked(
    host: Host, executor: LocalExecutor
) -> None:
    """What is trainflow's own: an attempt that imports it has its warm worker import it again."""
    (host.project.root / "fine.py").write_text("")
    (host.project.root / "pipelines/reads.py").write_text(READS)
    executor.queue_workload(workload(host, "reads", path="pipelines/reads.py"))
    host.until(lambda: host.exits)
    assert results(host) == {"reads0": [True, False]}


class TestImportsThatStartThreads:
    """Their pipeline is run without forking; what else there is goes on being forked."""

    @pytest.mark.parametrize(
        ("starts", "said"),
        [
            (POOL, r"module trainflow_pipeline_threads_\w+ starts 1 thread \(ThreadPoolExecutor-0_0\)"),
            (NATIVE, r"it starts 1 thread \(.+\)"),
        ],
        ids=["python", "native"],
    )
    def test_file_with_threads_is_spawned_and_others_are_forked(
        self, host: Host, executor: LocalExecutor, caplog: pytest.LogCaptureFixture, starts: str, said: str
    ) -> None:
        for name, text in (("threads", starts + WHO), ("calm", WHO)):
            (host.project.root / f"pipelines/{name}.py").write_text(text)
        names = ["threads", "calm", "threads", "calm"]
        for number, name in enumerate(names):
            executor.queue_workload(workload(host, "who", number, path=f"pipelines/{name}.py"))
        host.until(lambda: len(host.exits) == 4)
        parents = results(host)
        spawned = [parents[f"who{number}"] == os.getpid() for number in range(4)]
        assert spawned == [True, False, True, False]
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert re.search(said, line)
        assert line.startswith("pipelines/threads.py: ")

    def test_threads_of_first_task_import_are_noticed_before_second_run(
        self, host: Host, executor: LocalExecutor, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As in a chain: the module of the model is imported by the training task alone."""
        work = "def work():\n    return POOL.submit(len, 'four').result()\n"
        (host.project.root / "pool.py").write_text(f"{POOL}\n{work}")
        text = WHO.replace("python_callable=who", "python_callable='pool:work'")
        (host.project.root / "pipelines/lazy.py").write_text(text)
        for number in range(2):
            executor.queue_workload(workload(host, "who", number, path="pipelines/lazy.py"))
            host.until(lambda number=number: len(host.exits) == number + 1 and caplog.records)
        assert results(host) == {"who0": 4, "who1": 4}
        assert "module pool starts 1 thread" in caplog.text

    def test_libraries_that_every_chain_needs_are_forked(
        self, host: Host, executor: LocalExecutor, caplog: pytest.LogCaptureFixture
    ) -> None:
        """They have threads as well, and see to them when the process is forked."""
        text = "import numpy, pyarrow.parquet\nfrom trainflow.samples.rows.batches import warm_up\nwarm_up()\n" + WHO
        (host.project.root / "pipelines/reads.py").write_text(f"{text}\nnumpy.ones((9, 9)) @ numpy.ones((9, 9))\n")
        executor.queue_workload(workload(host, "who", path="pipelines/reads.py"))
        host.until(lambda: host.exits)
        assert executor.warm_process is not None
        assert results(host) == {"who0": executor.warm_process.pid}
        assert "not forked" not in caplog.text

    def test_isolation_fork_forks_all_same(self, host: Host) -> None:
        host.settings = msgspec.structs.replace(host.settings, executors={"local": {"isolation": "fork"}})
        (host.project.root / MARKER).write_text('[executors.local]\nisolation = "fork"\n')
        (host.project.root / "pipelines/threads.py").write_text(POOL + WHO)
        executor = host.executor = LocalExecutor()
        executor.start(host)
        executor.queue_workload(workload(host, "who", path="pipelines/threads.py"))
        host.until(lambda: host.exits)
        assert executor.warm_process is not None
        assert results(host) == {"who0": executor.warm_process.pid}
        executor.end(timedelta())


def test_child_hanging_before_first_word_is_run_again_alone(
    host: Host, executor: LocalExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    hangs = "import os, signal\nos.register_at_fork(after_in_child=signal.pause)\n"
    (host.project.root / "pipelines/hangs.py").write_text(hangs + WHO)
    attempt = workload(host, "who", path="pipelines/hangs.py")
    executor.queue_workload(attempt)
    host.until(lambda: executor._held[attempt.key].pid)
    executor._no_word(attempt.key)
    host.until(lambda: host.exits)
    assert host.exits == [(attempt.key, ProcessExit(code=0))]
    assert results(host) == {"who0": os.getpid()}
    assert "hangs since it was forked" in caplog.text
