"""Samples that are replaced while they are trained on, with as many rows as before: by the installed command, with real
files and real kills. What was trained on is read from the model's own file, a list of rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.live_project import WITHOUT_MLFLOW, LiveProject
from trainflow.checkpoints.ledger.entries import Checkpoint, Rewind
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow

NAME = "bound"
FILE = "pipelines/bound.yaml"
DAYS, ROWS_A_DAY = 2, 64
#: added to each row of a later edition
EDITION = 1000

PIPELINE = """\
pipeline: bound
retries: 0
samples:
  path: "samples/{start:%Y-%m-%d}/"
  length: 1d
  start: 2024-01-01
  end: 2024-01-03
  republished: replay
split: {partitions: 2}
train: {function: "operators.bound:train"}
"""

TRAINER = '''\
"""Train a model that is the list of its rows; wait at a row while there is a file that names it."""

import json
import time
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent


def note(*words):
    with open(ROOT / "journal.txt", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


def wait_at(row):
    if (ROOT / f"hold-{row}").exists():
        note("holding", row)
    while (ROOT / f"hold-{row}").exists():
        time.sleep(0.005)


def train(ctx):
    model = json.loads((ctx.start / "rows.json").read_text()) if ctx.start else []
    note("begins", len(model))

    def write(folder):
        (folder / "rows.json").write_text(json.dumps(model))

    batches = ctx.batches(batch_size=8)
    for batch in batches:
        model += batch["row"].to_pylist()
        ctx.save(batches.position, write, every=0)
        wait_at(len(model))
    write(ctx.output)
    wait_at("end")


def train_alone(ctx):
    """Read the files without any help."""
    model = []
    for file in ctx.split.files:
        model += pq.read_table(ROOT / file.path)["row"].to_pylist()
        wait_at(len(model))
    (ctx.output / "rows.json").write_text(json.dumps(model))
'''


@pytest.fixture
def project(tmp_path: Path) -> LiveProject:
    project = LiveProject(tmp_path / "bound", WITHOUT_MLFLOW)
    project.write(FILE, PIPELINE)
    project.write("operators/__init__.py", "")
    project.write("operators/bound.py", TRAINER)
    for number in range(DAYS):
        publish(project, number)
    return project


def path_of(project: LiveProject, number: int) -> Path:
    return project.root / f"samples/2024-01-{number + 1:02}/part-0.parquet"


def table_of(number: int, edition: int) -> pa.Table:
    first = number * ROWS_A_DAY + edition * EDITION
    return pa.table({"row": list(range(first, first + ROWS_A_DAY))})


def publish(project: LiveProject, number: int, edition: int = 0) -> None:
    """Put a file in the place of the one before, with as many rows in as many row groups."""
    path = path_of(project, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(".part-0.parquet")
    pq.write_table(table_of(number, edition), aside, row_group_size=16)
    aside.rename(path)
    (path.parent / "_SUCCESS").touch()


def write_over(project: LiveProject, number: int, edition: int) -> None:
    """The same, into the very file, whose times are put back."""
    path = path_of(project, number)
    before = path.stat()
    sink = pa.BufferOutputStream()
    pq.write_table(table_of(number, edition), sink, row_group_size=16)
    with path.open("r+b") as file:
        file.write(sink.getvalue())
        file.truncate()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rows_of(*editions: int) -> list[int]:
    return sorted(
        row for number, edition in enumerate(editions) for row in table_of(number, edition)["row"].to_pylist()
    )


def model(project: LiveProject) -> list[int]:
    ledger = project.ledger(NAME)
    folder = ledger.store.local_path(ledger.checkpoint().artifacts.path)
    assert folder is not None
    rows: list[int] = json.loads((folder / "rows.json").read_text())
    return rows


def hold_at(project: LiveProject, row: object, then: Callable[[], None]) -> str:
    """Train up to a row, let something happen, and train on. What was printed."""
    project.write(f"hold-{row}", "")
    running = project.begin_start(FILE, "--plain")
    wait_for(lambda: ["holding", str(row)] in project.journal(), lambda: running.output)
    then()
    (project.root / f"hold-{row}").unlink()
    ended = running.wait()
    assert ended.code == 0, ended.output
    return ended.output


def assert_told(project: LiveProject, said: str) -> None:
    """Both contents, and the file, in the log and beside the run; and the ledger names what was read."""
    assert "'samples' ran again" in said
    logs = "".join(path.read_text() for path in project.home.path.glob(f"logs/{NAME}/*/*/*.log"))
    assert "part-0.parquet has changed since the split was made, from " in logs
    runs = json.loads(project.ask("runs", "list", NAME, "--json").output)
    (note,) = [run["note"] for run in runs if run["note"]]
    assert "part-0.parquet has changed since the split was made, from " in note
    report = project.audit_command(NAME)
    assert (report["exit_code"], report["republished"], report["problems"]) == (0, [], [])


@pytest.mark.exhaustive
@pytest.mark.parametrize(("replace", "row"), [(publish, 8), (write_over, 64), (publish, 120)])
def test_replaced_file_mid_split_after_kill_trains_each_new_row_once(
    project: LiveProject, replace: Callable[..., None], row: int
) -> None:
    project.write(f"hold-{row}", "")
    running = project.begin_start(FILE, "--plain")
    wait_for(lambda: ["holding", str(row)] in project.journal(), lambda: running.output)
    for number in range(DAYS):
        replace(project, number, 1)
    project.kill_everything()
    (project.root / f"hold-{row}").unlink()

    ended = project.start(FILE, "--plain")
    assert ended.code == 0, ended.output
    assert sorted(model(project)) == rows_of(1, 1)
    assert [type(entry) for entry in project.ledger(NAME).entries()] == [Checkpoint]
    assert_told(project, ended.output)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("row", "number"), [(8, 1), (120, 0), ("end", 1)])
def test_replaced_while_it_is_trained_on_split_is_made_again(project: LiveProject, row: object, number: int) -> None:
    said = hold_at(project, row, lambda: publish(project, number, 1))
    assert sorted(model(project)) == rows_of(*(int(each == number) for each in range(DAYS)))
    assert_told(project, said)


def test_files_read_by_user_code_alone_are_checked_before_commit(project: LiveProject) -> None:
    project.write(FILE, PIPELINE.replace("bound:train", "bound:train_alone"))
    said = hold_at(project, ROWS_A_DAY, lambda: write_over(project, 1, 1))
    assert sorted(model(project)) == rows_of(0, 1)
    assert_told(project, said)


def test_samples_that_never_come_to_rest_end_run(project: LiveProject) -> None:
    project.write("operators/bound.py", TRAINER + CHANGING)
    project.write(FILE, PIPELINE.replace("bound:train", "bound:train_and_change"))
    ended = project.start(FILE, "--plain")
    assert ended.code == 1, ended.output
    assert "'samples' ran again 3 times for it in this run, which is given up" in ended.output
    assert project.committed(NAME) == 0
    assert len(project.journal()) == 4


CHANGING = """

def train_and_change(ctx):
    train(ctx)
    path = ROOT / ctx.split.files[0].path
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "row", [[row + 1000 for row in table["row"].to_pylist()]]), path)
"""


@pytest.mark.exhaustive
def test_touched_copied_and_moved_samples_are_same(project: LiveProject, tmp_path: Path) -> None:
    ended = project.start(FILE, "--plain")
    assert ended.code == 0, ended.output
    trained = model(project)
    (first,) = project.checkpoints(NAME)
    copied = LiveProject(tmp_path / "copied", WITHOUT_MLFLOW)
    for name in ("pipelines", "operators", "samples"):
        subprocess.run(["cp", "-r", project.root / name, copied.root / name], check=True)
    subprocess.run(f"touch {project.root}/samples/*/*", shell=True, check=True)
    shutil.copytree(project.root / "samples", project.root / "elsewhere")
    shutil.rmtree(project.root / "samples")
    (project.root / "elsewhere").rename(project.root / "samples")

    longer = PIPELINE.replace("end: 2024-01-03", "end: 2024-01-04")
    publish(project, 2)
    project.write(FILE, longer)
    assert project.start(FILE, "--plain").code == 0
    assert [type(entry) for entry in project.ledger(NAME).entries()] == [Checkpoint, Checkpoint]
    assert project.audit_command(NAME)["republished"] == []
    ended = copied.start(FILE, "--plain")
    assert ended.code == 0, ended.output
    assert model(copied) == trained  # in the same order: the seed is of the content
    assert copied.checkpoints(NAME)[0].split.digest == first.split.digest

    publish(project, 0, edition=1)
    project.write(FILE, longer.replace("end: 2024-01-04", "end: 2024-01-05"))
    publish(project, 3)
    assert project.start(FILE, "--plain").code == 0
    assert Rewind in [type(entry) for entry in project.ledger(NAME).entries()]
    assert sorted(model(project)) == rows_of(1, 0, 0, 0)
