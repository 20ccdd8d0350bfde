"""BashOperator and the process group it stands on: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trainflow.errors import FailException, SkipException, TaskError
from trainflow.operators import BashOperator
from trainflow.operators.process_group import ParentDeathWatch, ProcessGroup
from trainflow.task_signals import TaskTerminated
from trainflow.testing.processes import DEADLINE_SECONDS


def bash(dag: Any, **options: Any) -> Any:
    return dag(lambda: BashOperator(task_id="b", **options))


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("echo one; echo two", "two"),
        ("echo one >&2", "one"),
        ("printf 'no line end'", "no line end"),
        ("printf '10%%\\r20%%\\r\\n'", "20%"),
        ("true", None),
    ],
)
def test_bash_last_line_is_result(lab: Any, dag: Any, command: str, result: str | None) -> None:
    assert lab.run(bash(dag, bash_command=command), "b") == result


def test_command_is_template(lab: Any, dag: Any) -> None:
    assert lab.run(bash(dag, bash_command="echo {{ run_id }}"), "b", run_id="run-9") == "run-9"


def test_exit_code_fails_with_end_of_output(lab: Any, dag: Any) -> None:
    with pytest.raises(TaskError, match=r"(?s)exit code 3; the end of its output:\n  some\n  trouble") as caught:
        lab.run(bash(dag, bash_command="echo some; echo trouble; exit 3"), "b")
    assert not isinstance(caught.value, FailException)


def test_program_that_is_killed_for_want_of_memory_says_so(
    lab: Any, dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = tmp_path / "kills"
    kills.write_text("0")
    monkeypatch.setattr("trainflow.observability.oom_kills.oom_kill_counter", lambda: lambda: int(kills.read_text()))
    with pytest.raises(TaskError, match="killed by signal 9: the kernel killed it because memory ran out"):
        lab.run(bash(dag, bash_command=f"printf 1 > {kills}; kill -9 $$"), "b")


def test_bash_killed_by_signal_names_it(lab: Any, dag: Any) -> None:
    with pytest.raises(TaskError, match="killed by signal 9 and no output"):
        lab.run(bash(dag, bash_command="kill -9 $$"), "b")


@pytest.mark.parametrize(("codes", "skipped"), [(99, True), ([98, 99], True), (None, False), (1, False)])
def test_skip_on_exit_code(lab: Any, dag: Any, codes: Any, skipped: bool) -> None:
    with pytest.raises(SkipException if skipped else TaskError) as caught:
        lab.run(bash(dag, bash_command="exit 99", skip_on_exit_code=codes), "b")
    assert isinstance(caught.value, SkipException) is skipped


def test_bash_environment_is_passed(lab: Any, dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "yes")
    show = 'echo "$FROM_OUTSIDE|$GIVEN|$TRAINFLOW_CTX_RUN_ID"'
    assert lab.run(bash(dag, bash_command=show), "b") == "yes||run-1"
    assert lab.run(bash(dag, bash_command=show, env={"GIVEN": "{{ run_id }}"}), "b") == "|run-1|run-1"
    assert lab.run(bash(dag, bash_command=show, env={"GIVEN": "g"}, append_env=True), "b") == "yes|g|run-1"


def test_values_of_environment_are_in_no_message(lab: Any, dag: Any) -> None:
    with pytest.raises(TaskError) as caught:
        lab.run(bash(dag, bash_command="exit 1", env={"TOKEN": "s3cret-value"}), "b")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(TaskError) as caught:
        lab.run(bash(dag, bash_command="echo it is $TOKEN; exit 1", env={"TOKEN": "s3cret-value"}), "b")
    assert "it is ***" in str(caught.value)
    with pytest.raises(FailException, match="the values of TOKEN are not strings") as refused:
        lab.run(bash(dag, bash_command="true", env={"TOKEN": 123456}), "b")
    assert "123456" not in str(refused.value)


def test_bash_cwd_is_used(lab: Any, dag: Any) -> None:
    assert lab.run(bash(dag, bash_command="pwd", cwd="configs"), "b") == str(lab.root / "configs")
    with pytest.raises(FailException, match="it is not a folder"):
        lab.run(bash(dag, bash_command="pwd", cwd="nowhere"), "b")
    temporary = lab.run(bash(dag, bash_command="touch x; pwd"), "b")
    assert not os.path.exists(temporary)


def test_bash_encoding_is_used(lab: Any, dag: Any) -> None:
    command = "printf '\\344\\n'"
    assert lab.run(bash(dag, bash_command=command, output_encoding="latin-1"), "b") == "ä"
    assert lab.run(bash(dag, bash_command=command), "b") == "\\xe4"


def group(command: str, lines: list[str], **options: Any) -> ProcessGroup:
    return ProcessGroup(["bash", "-c", command], cwd="/", env=dict(os.environ), on_line=lines.append, **options)


def test_signal_that_raises_ends_whole_group(until_gone: Any) -> None:
    lines: list[str] = []
    processes = group("sleep 100 & echo $!; echo $$; wait", lines, grace_seconds=500)

    def told_to_stop(*_: Any) -> None:
        raise TaskTerminated("told to stop")

    before = signal.signal(signal.SIGUSR1, told_to_stop)
    processes._on_idle = lambda: os.kill(os.getpid(), signal.SIGUSR1) if len(lines) == 2 else None
    started = time.monotonic()
    try:
        with pytest.raises(TaskTerminated):
            processes.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - started < 400
    assert all(until_gone(int(pid)) for pid in lines)


def test_group_that_ignores_sigterm_is_killed_after_grace(until_gone: Any) -> None:
    lines: list[str] = []
    processes = group("trap '' TERM; echo $$; while :; do sleep 0.05; done", lines, grace_seconds=0.1)

    def stop() -> None:
        if lines:
            processes.stop()

    processes._on_idle = stop
    assert processes.run() == -signal.SIGKILL
    assert until_gone(int(lines[0]))


def test_sigterm_comes_first() -> None:
    lines: list[str] = []
    processes = group("trap 'echo saved; exit 7' TERM; echo ready; while :; do sleep 0.05; done", lines)
    processes._on_idle = lambda: processes.stop() if lines else None
    assert processes.run() == 7
    assert (lines[0], lines[-1]) == ("ready", "saved")
    processes.stop()


def test_bash_children_left_behind_do_not_delay_end(until_gone: Any) -> None:
    lines: list[str] = []
    assert group("sleep 100 & echo $!", lines).run() == 0
    assert until_gone(int(lines[0]))


def test_program_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError):
        ProcessGroup(["/no/such/program"], cwd="/", env={}, on_line=lambda line: None).run()


def test_output_that_is_closed_early_is_waited_for() -> None:
    lines: list[str] = []
    assert group("echo out; exec >&- 2>&-; sleep 0.2; exit 4", lines).run() == 4
    assert lines == ["out"]


OWNER = """
import os, sys
from trainflow.operators.process_group import ProcessGroup

def on_line(line):
    print(line, flush=True)
    if line == "ready":
        os.kill(os.getpid(), 9)

ProcessGroup(["bash", "-c", sys.argv[1]], cwd="/", env=dict(os.environ), on_line=on_line).run()
"""


def test_program_ends_when_its_owner_is_killed(until_gone: Any, tmp_path: Path) -> None:
    script = f"trap 'echo saved > {tmp_path / 'saved'}; exit 0' TERM; echo $$; sleep 100 & echo $!; echo ready; wait"
    result = subprocess.run(
        [sys.executable, "-c", OWNER, script], capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    assert result.returncode == -signal.SIGKILL
    program, child, ready = result.stdout.split()
    assert ready == "ready"
    assert until_gone(int(program))
    assert until_gone(int(child))
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_death_watch_that_is_released_leaves_group_alone(until_gone: Any) -> None:
    sleeper = subprocess.Popen(["sleep", "100"], process_group=0)
    try:
        line = ParentDeathWatch(sleeper.pid)
        line.release()
        assert until_gone(line._watcher.pid)
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
