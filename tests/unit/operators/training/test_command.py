"""TrainOperator with programs: what they are told, how they end, and what is said when they do it wrong."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operators.training_runs import committed
from trainflow.errors import FailException, TaskError
from trainflow.task_signals import TaskPreempted, TaskTerminated


def test_train_program_with_uncommittable_output_is_ended_at_next_save(lab: Any, training: Any) -> None:
    script = (
        'ln -s /etc "$TRAINFLOW_OUTPUT/etc"; mkdir "$TRAINFLOW_SAVES/.1"; '
        'echo \'{"position": {"row": 1}, "state": {}}\' > "$TRAINFLOW_SAVES/.1/save.json"; '
        'mv "$TRAINFLOW_SAVES/.1" "$TRAINFLOW_SAVES/1"; sleep 100'
    )
    with pytest.raises(FailException, match="etc is a link to /etc, outside of the output folder"):
        lab.run(training(command=["bash", "-c", script]), "train")


def program(script: str) -> list[str]:
    return [sys.executable, "-c", script]


PYTHON_TRAINER = """
import json, os
from trainflow.operators import training_task

ctx = training_task()
rows = sum(batch.num_rows for batch in ctx.split.batches(seed=ctx.seed))
ctx.progress(rows, ctx.split.rows, loss=0.5, broken=float("nan"))
assert ctx.parent is None or (ctx.parent.path / "model").read_text() == "10"
assert ctx.saved is None and ctx.start == (ctx.parent and ctx.parent.path)
assert ctx.save({"row": rows}, lambda folder: (folder / "w").write_text("weights"), state={"n": rows}, every=0)
(ctx.output / "model").write_text(str(rows))
with open(os.environ["TRAINFLOW_METRICS"], "w") as file:
    json.dump({"auc": 0.5, "depth": ctx.params["depth"]}, file)
"""


def test_python_program_gets_same_context(lab: Any, training: Any) -> None:
    for _ in range(2):
        build = training(command=program(PYTHON_TRAINER), params={"depth": 3})
        trained = lab.run(build, "train")
        assert trained["metrics"] == {"auc": 0.5, "depth": 3.0}
        told = pytest.approx({"loss": 0.5, "broken": math.nan}, nan_ok=True)
        assert lab.ti.progress == [(10.0, 10.0, "rows", told)]
        lab.run(build, "commit")
        assert list((lab.project.home.scratch / "attempts").iterdir()) == []
    assert committed(lab).metrics == {"auc": 0.5, "depth": 3.0}
    assert committed(lab).sequence == 2


SHELL_TRAINER = r"""
set -eu
echo "training {{ run_id }}"
test -f "$TRAINFLOW_TASK"
echo '{"done": 1, "total": 2, "unit": "steps"}' >> "$TRAINFLOW_PROGRESS"
echo 'this is no progress' >> "$TRAINFLOW_PROGRESS"
echo '{"loss": 0.25}' > "$TRAINFLOW_METRICS"
echo "parent=[$TRAINFLOW_PARENT]" > "$TRAINFLOW_OUTPUT/model"
"""


def test_shell_program_needs_no_library(lab: Any, training: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    build = training(command=["bash", "-c", SHELL_TRAINER])
    trained = lab.run(build, "train")
    assert trained["metrics"] == {"loss": 0.25}
    assert lab.ti.progress == [(1.0, 2.0, "steps", None)]
    assert "training run-1" in caplog.text
    assert "a line of progress cannot be read" in caplog.text
    assert (lab.root / "checkpoints" / trained["artifacts"]["path"] / "model").read_text() == "parent=[]\n"


def test_task_file_holds_whole_task_and_no_options(lab: Any, training: Any) -> None:
    build = training(command=["bash", "-c", 'cp "$TRAINFLOW_TASK" "$TRAINFLOW_OUTPUT/task.json"'])
    trained = lab.run(build, "train")
    task = json.loads((lab.root / "checkpoints" / trained["artifacts"]["path"] / "task.json").read_text())
    assert task["chain"] == "model/main/main"
    assert task["parent"] is None
    assert task["split"]["partitions"][0]["files"][0]["path"].startswith("data/date=2013-01-01/")
    assert task["project"] == str(lab.root)
    assert "storage_options" not in json.dumps(task)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo last words; exit 5", r"(?s)ended with exit code 5; the end of its output:\n  last words"),
        ("exit 0", "wrote nothing"),
        ("touch $TRAINFLOW_OUTPUT/m; echo '{' > $TRAINFLOW_METRICS", "metrics that are no JSON"),
        ("touch $TRAINFLOW_OUTPUT/m; echo '[1]' > $TRAINFLOW_METRICS", "returned list"),
        ("kill -TERM $$", "killed by signal 15"),
    ],
)
def test_program_that_fails_says_how(lab: Any, training: Any, script: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        lab.run(training(command=["bash", "-c", script]), "train")


def test_program_that_does_not_exist(lab: Any, training: Any) -> None:
    with pytest.raises(TaskError, match="'/no/such/trainer' cannot be started: No such file"):
        lab.run(training(command=["/no/such/trainer"]), "train")


def test_train_told_to_stop_ends_program_and_children(lab: Any, training: Any, tmp_path: Path, until_gone: Any) -> None:
    script = "sleep 100 & echo $! > {0}; trap 'echo saved >> {0}; exit 0' TERM; kill -USR1 {1}; wait".format(
        tmp_path / "seen", os.getpid()
    )

    def told_to_stop(*_: Any) -> None:
        raise TaskTerminated("told to stop")

    before = signal.signal(signal.SIGUSR1, told_to_stop)
    try:
        with pytest.raises(TaskTerminated):
            lab.run(training(command=["bash", "-c", script]), "train")
    finally:
        signal.signal(signal.SIGUSR1, before)
    pid, saved = (tmp_path / "seen").read_text().split()
    assert saved == "saved"
    assert until_gone(int(pid))


SAVING_PROGRAM = r"""
set -eu
mkdir "$TRAINFLOW_SAVES/.writing"
echo "weights $1" > "$TRAINFLOW_SAVES/.writing/w"
echo '{"position": {"row": '$1'}, "state": {"n": 1}}' > "$TRAINFLOW_SAVES/.writing/save.json"
mv "$TRAINFLOW_SAVES/.writing" "$TRAINFLOW_SAVES/$1"
"""


def told_to_stop_by_signal(lab: Any) -> Any:
    """As an attempt is by SIGTERM, here by SIGUSR1."""

    def told(*_: Any) -> None:
        lab.ti.terminated = True
        lab.ti.on_stop()

    return signal.signal(signal.SIGUSR1, told)


@pytest.mark.parametrize("code", [0, 7])
def test_train_told_to_stop_program_may_save_and_is_preempted(
    lab: Any, training: Any, tmp_path: Path, code: int
) -> None:
    (tmp_path / "save").write_text(SAVING_PROGRAM)
    script = (
        f'echo "saved=$(cat $TRAINFLOW_SAVED/w)" >> {tmp_path}/seen; '
        f"trap 'bash {tmp_path}/save 7; touch $TRAINFLOW_OUTPUT/model; exit {code}' TERM; "
        f"kill -USR1 {os.getpid()}; while true; do sleep 0.01; done"
    )
    before = told_to_stop_by_signal(lab)
    try:
        with pytest.raises(TaskPreempted, match="'bash' did"):
            lab.run(training(command=["bash", "-c", script]), "train")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert lab.ti.saved_rows == [7]
    # the next attempt gets it; another program would not
    again = training(command=["bash", "-c", script])
    before = told_to_stop_by_signal(lab)
    try:
        with pytest.raises(TaskPreempted):
            lab.run(again, "train")
    finally:
        signal.signal(signal.SIGUSR1, before)
    # as the program sees it: the folder is the attempt's, and goes with it
    assert (tmp_path / "seen").read_text().splitlines() == ["saved=", "saved=weights 7"]
    assert lab.ti.saved_rows == []  # no further than before


def test_saves_of_program_are_kept_when_it_fails_afterwards(
    lab: Any, training: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "save").write_text(SAVING_PROGRAM)
    saves = f"bash {tmp_path}/save 3; bash {tmp_path}/save 4; mkdir $TRAINFLOW_SAVES/.5"
    program = ["bash", "-c", f"{saves}; exit 1"]
    with pytest.raises(TaskError):
        lab.run(training(command=program), "train")
    assert lab.ti.saved_rows[-1] == 4

    with pytest.raises(TaskError):
        lab.run(training(command=["bash", "-c", "mkdir $TRAINFLOW_SAVES/6; exit 1"]), "train")
    assert "was not kept" in caplog.text
    assert lab.ti.saved_rows == []


def test_train_told_to_stop_python_program_saves_at_next_point(lab: Any, training: Any) -> None:
    script = f"""
import os, signal
from trainflow.operators import training_task

ctx = training_task()
batches = ctx.batches(batch_size=2)
for batch in batches:
    if ctx.saved is None and batches.position["row"] == 4:
        assert not ctx.stopping
        os.kill({os.getpid()}, signal.SIGUSR1)
        while not ctx.stopping:
            pass
    ctx.save(batches.position, lambda folder: (folder / "w").write_text("weights"), state={{"x": 1}})
row, weights = ctx.saved.position["row"], (ctx.start / "w").read_text()
(ctx.output / "model").write_text(f"{{row}} {{ctx.saved.state}} {{weights}}")
"""
    before = told_to_stop_by_signal(lab)
    try:
        with pytest.raises(TaskPreempted):
            lab.run(training(command=program(script)), "train")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert lab.ti.saved_rows == [4]
    trained = lab.run(training(command=program(script)), "train")
    model = lab.root / "checkpoints" / trained["artifacts"]["path"] / "model"
    assert model.read_text() == "4 {'x': 1} weights"
