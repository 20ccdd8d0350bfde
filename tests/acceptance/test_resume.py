"""Killed, told to stop, failed or cancelled in the middle of a split, with real processes: the next attempt goes on
from what was saved, and the model has seen each row once, in the order of a training that was not disturbed.

The trainer meets its disturbances - files that name a row - and notes at which row it begins. The model is a list of
rows.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.live_project import WITHOUT_MLFLOW, LiveProject, Running
from trainflow.testing.processes import Found, wait_for

pytestmark = pytest.mark.slow

NAME = "kept"
FILE = "pipelines/kept.yaml"
#: two files of twenty rows in one split, read in batches of eight
ROWS, BATCH = 40, 8
ROW_IDS = list(range(ROWS))

PIPELINE = """\
pipeline: kept
retry_delay: 0s
samples: {path: "samples/{start:%Y-%m-%d}/", length: 1d, start: 2024-01-01, end: 2024-01-03}
split: {partitions: 2}
train: {function: "operators.kept:train", retries: 2}
params: {shuffle: true}
"""

TRAINER = '''\
"""Train a model that is the list of its rows, and die where it is told to."""

import json
import os
import signal
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def note(*words):
    with open(ROOT / "journal.txt", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


def meet(ctx, row):
    """What happens at this row: each disturbance once, but those that are `always`."""
    for disturbance in sorted(ROOT.glob(f"disturbances/*-{row}")):
        kind = disturbance.name.split("-")[0]
        if kind != "always":
            disturbance.unlink()
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "killparent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if kind in ("fail", "always"):
            raise ValueError(f"dies at row {row}")
        if kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if kind in ("hold", "deaf", "slow"):
            note("holding", os.getpid())
            while (ROOT / "hold").exists() and not (kind == "hold" and ctx.stopping):
                time.sleep(0.005)


def train(ctx):
    model = json.loads((ctx.start / "rows.json").read_text()) if ctx.start else []
    world_size = 1 + len(list(open(ROOT / "journal.txt")) if (ROOT / "journal.txt").exists() else []) % 3
    note("begins", len(model), ctx.attempt_id)

    def write(folder):
        (folder / "rows.json").write_text(json.dumps(model))

    ranks = [
        ctx.batches(batch_size=8, shuffle=ctx.params["shuffle"], rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    step = True
    while step:
        step = [batch for batch in (next(reader, None) for reader in ranks) if batch is not None]
        for batch in step:
            for row in batch["row"].to_pylist():
                meet(ctx, len(model))
                model.append(row)
        ctx.progress(len(model), loss=1 / (1 + len(model)))
        meet(ctx, len(model))
        ctx.save(ranks[0].position, write, every=0)
    write(ctx.output)


def program():
    from trainflow.operators import training_task

    train(training_task())


if __name__ == "__main__":
    program()
'''


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the very same files for all: the order of a shuffled training depends on their fingerprints."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("table")
    for number in range(2):
        folder = root / "samples" / f"2024-01-0{number + 1}"
        folder.mkdir(parents=True)
        rows = list(range(number * 20, number * 20 + 20))
        pq.write_table(pa.table({"row": rows}), folder / "part-0.parquet", row_group_size=7)
        (folder / "_SUCCESS").touch()
    return root


def lay_out(project: LiveProject, samples: Path) -> LiveProject:
    project.write(FILE, PIPELINE)
    project.write("operators/__init__.py", "")
    project.write("operators/kept.py", TRAINER)
    project.copy_of(samples, "samples")
    return project


@pytest.fixture
def kept(projects: Callable[..., LiveProject], samples: Path) -> LiveProject:
    return lay_out(projects("kept"), samples)


@pytest.fixture(scope="module")
def undisturbed(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[int]]:
    """The model of a training that is not disturbed; once for each way of shuffling."""

    @cache
    def trained(shuffle: str) -> list[int]:
        project = lay_out(LiveProject(tmp_path_factory.mktemp("undisturbed") / "project"), samples)
        ended = project.start(FILE, "--set", f"params.shuffle={shuffle}")
        assert ended.code == 0, ended.output
        found = model(project)
        assert sorted(found) == ROW_IDS
        assert (found == ROW_IDS) == (shuffle == "false")
        return found

    return trained


def disturbances(project: LiveProject, *names: str) -> None:
    """`kind-row` each."""
    for name in names:
        project.write(f"disturbances/{name}", "")


def beginnings(project: LiveProject) -> list[int]:
    """How many rows the model had at the beginning of each attempt."""
    return [int(words[1]) for words in project.journal() if words[0] == "begins"]


def model(project: LiveProject) -> list[int]:
    """Of the one checkpoint there is."""
    (checkpoint,) = project.checkpoints(NAME)
    path = project.root / "checkpoints" / checkpoint.artifacts.path / "rows.json"
    return list(json.loads(path.read_text()))


def partials(project: LiveProject) -> Path:
    return project.root / "checkpoints" / NAME / "main" / "main" / "partials"


def attempts(project: LiveProject) -> list[tuple[str, int]]:
    """(outcome, try) of each attempt of the training task."""
    database = sqlite3.connect(project.home.database)
    try:
        return database.execute(
            "select a.outcome, a.try_number from attempt a join task_instance t on t.id = a.task_instance_id "
            "where t.task_id = 'train' order by a.queued_at"
        ).fetchall()
    finally:
        database.close()


def lost_curves(project: LiveProject) -> list[list[list[float]]]:
    """What attempts that were lost had reported, as anyone can ask for it."""
    run = json.loads(project.ask("runs", "list", NAME, "--json").output)[-1]["run_id"]
    task = json.loads(project.ask("tasks", "show", NAME, run, "train", "--json").output)
    return [
        each["curves"]["loss"]
        for each in (task[0] if isinstance(task, list) else task)["attempts"]
        if each["outcome"] == "lost" and each["curves"]
    ]


def holding(project: LiveProject, running: Running) -> Found:
    """Wait until the trainer is held; its process."""

    def look() -> Found | None:
        if running.ended:
            raise AssertionError(f"ended ({running.process.returncode}):\n{running.output}")
        pids = [int(words[1]) for words in project.journal() if words[0] == "holding"]
        return next((found for found in project.processes() if pids and found.pid == pids[-1]), None)

    return wait_for(look, lambda: f"an attempt that holds:\n{running.output}\n{project.engine_log()}")


def assert_trained(project: LiveProject, expected: list[int]) -> None:
    """The model is as expected, which holds each row once; the ledger says so; nothing saved on the way is left."""
    assert model(project) == expected
    report = project.audit(NAME)
    assert (report.problems, report.gaps, report.duplicates, report.partitions) == ([], [], [], 2)
    assert list(partials(project).glob("*")) == []


Undisturbed = Callable[[str], list[int]]


@pytest.mark.parametrize("shuffle", [pytest.param("true", marks=pytest.mark.exhaustive), "false"])
def test_resume_at_every_edge_with_other_worker_counts_trains_each_row_once(
    kept: LiveProject, undisturbed: Undisturbed, shuffle: str
) -> None:
    """kill -9 before the first row, after it, at the edges of batches and of files, before and after the last row."""
    edges = (0, 1, BATCH - 1, BATCH, BATCH + 1, 16, 19, 20, 21, ROWS - 1, ROWS)
    disturbances(kept, *(f"kill-{row}" for row in edges))
    ended = kept.start(FILE, "--set", f"params.shuffle={shuffle}")
    assert ended.code == 0, ended.output
    assert len(beginnings(kept)) == len(edges) + 1
    assert_trained(kept, undisturbed(shuffle))
    # one that is killed has used up no try
    assert attempts(kept) == [("lost", 1)] * len(edges) + [("success", 1)]
    # what it had reported by then is kept, of those that had come so far
    assert lost_curves(kept), "no attempt that was killed has left a curve"
    for points in lost_curves(kept):
        assert [value for _, value, _ in points] == [1 / (1 + done) for done, _, _ in points]


def test_stop_from_outside_saves_and_next_attempt_resumes(kept: LiveProject, undisturbed: Undisturbed) -> None:
    """A spot machine is taken away, a pod evicted: SIGTERM to the attempt alone."""
    kept.write("hold", "")
    disturbances(kept, "hold-11")
    running = kept.begin_start(FILE)
    holding(kept, running).kill(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 0, ended.output
    assert beginnings(kept) == [0, 16]
    assert attempts(kept) == [("preempted", 1), ("success", 1)]
    assert_trained(kept, undisturbed("true"))


@pytest.mark.exhaustive
def test_stop_of_engine_saves_and_another_host_resumes(kept: LiveProject, undisturbed: Undisturbed) -> None:
    kept.write("hold", "")
    disturbances(kept, "hold-11")
    running = kept.begin_start(FILE)
    attempt = holding(kept, running)
    running.signal(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 130, ended.output
    assert not attempt.alive
    kept.wait_until_quiet()
    # home and database are gone: another host has neither
    shutil.rmtree(kept.home.path)
    ended = kept.start(FILE)
    assert ended.code == 0, ended.output
    assert beginnings(kept) == [0, 16]
    assert_trained(kept, undisturbed("true"))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "ends"), [("deaf", "lost"), ("slow", "preempted")])
def test_stop_beyond_grace_falls_back_to_last_save(
    kept: LiveProject, undisturbed: Undisturbed, kind: str, ends: str
) -> None:
    """One that does not listen is killed; one that takes too long is interrupted before, and can still say so."""
    kept.write("configs/trainflow.toml", WITHOUT_MLFLOW + "[engine]\nstop_grace_seconds = 1.5\n")
    kept.write("hold", "")
    disturbances(kept, f"{kind}-27")
    running = kept.begin_start(FILE)
    attempt = holding(kept, running)
    running.signal(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 130, ended.output
    assert not attempt.alive
    assert ("did not stop in time: killed" in kept.engine_log()) == (kind == "deaf")
    (kept.root / "hold").unlink()
    ended = kept.start(FILE)
    assert ended.code == 0, ended.output
    assert beginnings(kept) == [0, 24]
    assert attempts(kept) == [(ends, 1), ("success", 1)]
    assert_trained(kept, undisturbed("true"))


@pytest.mark.exhaustive
def test_death_at_same_row_each_time_fails_after_retries(kept: LiveProject) -> None:
    disturbances(kept, "always-20")
    ended = kept.start(FILE)
    assert ended.code == 1, ended.output
    assert "dies at row 20" in ended.output
    # the first one got further than ever; then three tries did not
    assert beginnings(kept) == [0, 16, 16, 16]
    assert attempts(kept) == [("failed", 1), ("failed", 1), ("failed", 2), ("failed", 3)]
    # what it was trained with is repaired: it goes on from there
    shutil.rmtree(kept.root / "disturbances")
    ended = kept.start(FILE)
    assert ended.code == 0, ended.output
    assert beginnings(kept)[4:] == [16]
    assert sorted(model(kept)) == ROW_IDS


def test_death_further_on_each_time_uses_no_retries(kept: LiveProject, undisturbed: Undisturbed) -> None:
    disturbances(kept, *(f"fail-{row}" for row in (11, 27)))
    ended = kept.start(FILE, "--set", "train.retries=0")
    assert ended.code == 0, ended.output
    assert attempts(kept) == [("failed", 1)] * 2 + [("success", 1)]
    assert_trained(kept, undisturbed("true"))


@pytest.mark.exhaustive
def test_cancelled_it_saves_nothing_and_cleared_it_begins_split_anew(
    kept: LiveProject, undisturbed: Undisturbed
) -> None:
    kept.write("hold", "")
    disturbances(kept, "hold-20")
    running = kept.begin_start(FILE)
    attempt = holding(kept, running)
    saved = sorted(path.name for path in partials(kept).glob("*/*"))
    run = json.loads(kept.ask("runs", "list", NAME, "--json").output)[-1]["run_id"]
    assert kept.ask("runs", "cancel", NAME, run).code == 0
    ended = running.wait()
    assert ended.code == 1, ended.output
    kept.wait_until_quiet()
    assert not attempt.alive
    assert attempts(kept) == [("cancelled", 1)]
    assert sorted(path.name for path in partials(kept).glob("*/*")) == saved

    (kept.root / "hold").unlink()
    assert kept.ask("runs", "clear", NAME, run).code == 0
    ended = kept.start(FILE)
    assert ended.code == 0, ended.output
    assert beginnings(kept) == [0, 0]
    assert_trained(kept, undisturbed("true"))


@pytest.mark.exhaustive
def test_program_after_kill_or_stop_resumes(kept: LiveProject, undisturbed: Undisturbed) -> None:
    program = json.dumps([sys.executable, "-m", "operators.kept"])
    kept.write(FILE, PIPELINE.replace('{function: "operators.kept:train", retries: 2}', f"{{command: {program}}}"))
    kept.write("hold", "")
    disturbances(kept, "killparent-11", "hold-27")
    running = kept.begin_start(FILE)
    program_process = holding(kept, running)
    attempt = next(found for found in kept.processes() if found.pid == program_process.parent)
    attempt.kill(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 0, ended.output
    first, second, third = beginnings(kept)
    # whether the save at row 8 had reached the store when the attempt was killed is a matter of moments
    assert (first, third) == (0, 32)
    assert second in (0, 8)
    assert attempts(kept) == [("lost", 1), ("preempted", 1), ("success", 1)]
    assert_trained(kept, undisturbed("true"))
