"""A pipeline file is read by a process of its own, and whatever it does, the command answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import InputError
from trainflow.executors.spawn import spawn_forkserver
from trainflow.messages.workload import DagSource, ParseFile, ParseResult
from trainflow.observability.processes import started_at
from trainflow.serialization.document import decode
from trainflow.settings.model import DagProcessorSettings, Settings
from trainflow.settings.project import Project
from trainflow.testing.processes import wait_for
from trainflow.workspace.pipeline_file import parse, read_file

WriteProject = Callable[[dict[str, str]], Project]

CHAIN = """
import os
import sys
from datetime import UTC, datetime

from trainflow import DAG
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.operators import CheckpointOperator, CommitCheckpointOperator, DataCheckerOperator
from trainflow.operators import Samples, TrainOperator

print("this must not get into the answer")
os.write(1, b"nor this")

TABLE = Samples(
    path="s3://bucket/{start:%Y%m%d}/", length_seconds=86_400, start=datetime(2013, 1, 1, tzinfo=UTC),
    storage_options={"secret": "of the samples"},
)

def train(ctx):
    return {}

with DAG("chain"):
    head = CheckpointOperator(store="s3://bucket/store", storage_options={"secret": "of the store"})
    split = DataCheckerOperator(samples=TABLE, checkpoint=head.output)
    trained = TrainOperator(function=train, checkpoint=head.output, split=split.output)
    CommitCheckpointOperator(
        checkpoint=head.output, split=split.output, trained=trained.output, retention=KeepLatest(3)
    )
"""


def read(project: Project, seconds: float = 60.0) -> ParseResult:
    settings = Settings(dag_processor=DagProcessorSettings(parse_timeout_seconds=seconds))
    return parse(project, settings, project.root / "pipelines/p.py", {})


def test_documents_and_what_they_must_not_hold(write_project: WriteProject) -> None:
    project = write_project({"pipelines/p.py": CHAIN})

    parsed = read_file(project, Settings(), project.root / "pipelines/p.py", {})

    document = decode(bytes(parsed.result.dags[0].document))
    assert (document.dag_id, document.chain is not None) == ("chain", True)
    access = parsed.access["chain"]
    assert access.store_options == {"secret": "of the store"}
    assert access.sample_options == {"secret": "of the samples"}
    assert access.retention == [KeepLatest(3)]
    assert b"of the" not in msgspec.json.encode(parsed.result)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere", "pipelines/p.py:1: ModuleNotFoundError"),
        ("def broken(:", "pipelines/p.py:1:12: syntax error"),
        ("from trainflow import DAG\nDAG('a', schedle=None)", "pipelines/p.py:2: DAG 'a' has no argument"),
        ("import os; os._exit(7)", "ended without an answer (exit code 7: something in it calls exit or os._exit)"),
        ("import os; os.kill(os.getpid(), 9)", "(signal 9: it was killed from outside, by a person or for the memory"),
        ("import os; os.kill(os.getpid(), 11)", "(signal 11: it crashes)"),
        ("import os, sys; sys.stderr.write('last words'); sys.stderr.flush(); os.abort()", "last words"),
        ("x = 1", "defines no DAG"),
    ],
)
def test_read_file_with_mistake_names_it(write_project: WriteProject, source: str, said: str) -> None:
    project = write_project({"pipelines/p.py": source})

    with pytest.raises(InputError) as raised:
        read(project)

    assert said in str(raised.value)
    # as the mistakes of YAML: from the project's folder, wherever that lies
    assert f"{project.root}/pipelines/p.py:" not in str(raised.value)
    assert "pipelines/p.py" in str(raised.value)


def test_module_beside_pipeline_is_found_below_project(write_project: WriteProject) -> None:
    beside = "from trainflow import DAG\nfrom trainflow.operators import EmptyOperator\n"
    beside += "with DAG('a'):\n    EmptyOperator(task_id=names.TASK)\n"
    project = write_project({"pipelines/names.py": "TASK = 't'\n", "pipelines/p.py": "import names\n" + beside})

    with pytest.raises(InputError, match=r"No module named 'names' \(what is imported .* write pipelines\.names\)"):
        read(project)

    (project.root / "pipelines/p.py").write_text("from pipelines import names\n" + beside)
    assert [dag.dag_id for dag in read(project).dags] == ["a"]


@pytest.mark.slow
def test_file_that_hangs_is_ended_with_all_it_started(
    write_project: WriteProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    project = write_project(
        {
            "pipelines/p.py": f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
time.sleep(600)
"""
        }
    )

    class UpWhenItHangs(subprocess.Popen[bytes]):
        """Its time is up as soon as it hangs."""

        def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
            assert timeout == 6.0
            while True:
                try:
                    return super().communicate(input, timeout=0.02)
                except subprocess.TimeoutExpired:
                    input = None  # it has got that
                    if pids.exists() and len(pids.read_text().split()) == 2:
                        raise

    monkeypatch.setattr(subprocess, "Popen", UpWhenItHangs)
    with pytest.raises(InputError, match="took longer than 6 s: a pipeline file must only describe"):
        read(project, seconds=6.0)

    parent, child = map(int, pids.read_text().split())
    wait_for(lambda: not _is_running(parent) and not _is_running(child), "what was killed to end")


@pytest.mark.slow
def test_thread_that_file_left_behind_holds_nothing_up(write_project: WriteProject) -> None:
    waits = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
    project = write_project({"pipelines/p.py": waits + CHAIN})

    assert read(project)


def test_folder_command_was_typed_in_hides_nothing(write_project: WriteProject, tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('the wrong msgspec')")
    project = write_project({"pipelines/p.py": CHAIN})
    script = (
        "import sys; from pathlib import Path; sys.path = [p for p in sys.path if p]\n"
        "from trainflow.workspace.pipeline_file import parse; from trainflow.settings.model import Settings\n"
        "from trainflow.settings.project import project_at\n"
        f"project = project_at(Path({str(project.root)!r}))\n"
        "print(len(parse(project, Settings(), project.root / 'pipelines/p.py', {}).dags))"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "1", done.stderr


def _is_running(pid: int) -> bool:
    """A zombie that is not reaped yet does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return os.path.exists(f"/proc/{pid}")


#: says which process it is, and never ends
ENDLESS = """
import os
from pathlib import Path
beside = Path(__file__).with_suffix(".new")
beside.write_text(str(os.getpid()))
beside.rename(Path(__file__).with_suffix(".pid"))
while True:
    pass
"""
BY_COMMAND = """
import sys
from pathlib import Path
from trainflow.workspace.pipeline_file import parse
from trainflow.settings.model import Settings
from trainflow.settings.project import project_at
project = project_at(Path(sys.argv[1]))
parse(project, Settings(), project.root / "pipelines/p.py", {})
"""
BY_WORKER = """
import signal, sys
from pathlib import Path
from trainflow.executors.spawn import spawn_forkserver
from trainflow.executors.spawn import spawn_forkserver
from trainflow.messages.workload import DagSource, ParseFile
spawned = spawn_forkserver(Path(sys.argv[1]))
answer = spawned.parse(ParseFile(DagSource("pipelines/p.py"), sys.argv[1], sys.argv[1] + "/.trainflow"))
signal.pause()
"""


@pytest.mark.parametrize("caller", [BY_COMMAND, BY_WORKER], ids=["command", "warm worker"])
def test_read_file_that_never_ends_dies_with_reader(write_project: WriteProject, caller: str) -> None:
    project = write_project({"pipelines/p.py": ENDLESS})
    process = subprocess.Popen([sys.executable, "-c", caller, str(project.root)])
    said = project.root / "pipelines/p.pid"
    wait_for(said.exists, "the file to be read")
    reader = int(said.read_text())
    process.kill()
    process.wait()
    wait_for(lambda: not _is_there(reader), "the end of what reads the file")


def test_warm_worker_has_imported_what_reads_yaml_before_it_forks_a_reader(write_project: WriteProject) -> None:
    project = write_project({"pipelines/p.yaml": "pipeline: p\n"})
    spawned = spawn_forkserver(project.root)
    try:
        source = DagSource("pipelines/p.yaml")
        with spawned.parse(ParseFile(source, str(project.root), str(project.home.path))) as answer:
            assert answer.recv(1) != b""  # the first of what the reader says
            # otherwise it imports all that beside its parent, which needs the same for the attempts that follow
            assert "_pydantic_core" in Path(f"/proc/{spawned.process.pid}/maps").read_text()
    finally:
        spawned.discard()
        spawned.process.wait()


def test_file_that_never_ends_has_limit_of_processor_time(write_project: WriteProject) -> None:
    project = write_project({"pipelines/p.py": ENDLESS})
    request = msgspec.json.encode(ParseFile(DagSource("pipelines/p.py"), str(project.root), str(project.home.path)))
    argv = [sys.executable, "-P", "-m", "trainflow.execution.parse_main", str(os.getpid()), "1"]
    done = subprocess.run(argv, input=request, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGXCPU, b"")


def _is_there(pid: int) -> bool:
    try:
        started_at(pid)
    except ProcessLookupError:
        return False
    return True
