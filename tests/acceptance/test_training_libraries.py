"""The functions of docs/training.md, as they stand there, with the libraries that they are for."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import documents
from tests.support.live_project import LiveProject
from tests.support.tiny_project import FIRST_DAY
from trainflow.testing.processes import ProcessKind, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

TEXT = (documents.ROOT / "docs" / "training.md").read_text()
FILE, NAME = "pipelines/clicks.yaml", "clicks"
DAYS, ROWS = 4, 600
#: heading, and the module that its function needs
LIBRARIES = {"scikit-learn": "sklearn", "LightGBM": "lightgbm", "XGBoost": "xgboost", "PyTorch": "torch"}
#: waits behind the first save
HOLD = """

def hold():
    import time
    from pathlib import Path

    Path("{saved}").touch()
    while Path("{hold}").exists():
        time.sleep(0.005)
"""


def block(language: str, heading: str = "") -> str:
    """The first block of code in a language, under a heading."""
    return documents.blocks(TEXT.partition(f"\n## {heading}\n")[2] if heading else TEXT, language)[0]


def project_of(root: Path, library: str) -> LiveProject:
    """Four days of clicks in two splits, and the function for this library."""
    module = LIBRARIES[library]
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: it is large, and this function is run by hand")
    project = LiveProject(root)
    project.write(FILE, block("yaml"))
    project.write("operators/__init__.py", "")
    project.write("operators/clicks.py", block("python", library))
    (project.root / "samples").mkdir()
    for number in range(DAYS):
        random = np.random.default_rng(number)
        age, hour, price = random.normal(size=(3, ROWS))
        clicked = (age - price + random.normal(size=ROWS) > 0).astype(np.int64)
        table = pa.table({"age": age, "hour": hour, "price": price, "clicked": clicked})
        pq.write_table(table, project.root / "samples" / f"{FIRST_DAY + timedelta(days=number):%Y-%m-%d}.parquet")
    return project


def weights(project: LiveProject, number: int) -> list[float]:
    """What a model of scikit-learn has learnt, of the checkpoint with that place."""
    import skops.io

    folder = project.ledger(NAME).store.local_path(project.checkpoints(NAME)[number].artifacts.path)
    model = skops.io.load(folder / "model.skops")
    return [*model.coef_[0].tolist(), *model.intercept_.tolist(), model.t_]


def trains_on(project: LiveProject) -> None:
    """Train both splits, the second from what came of the first."""
    ended = project.start(FILE)
    assert ended.code == 0, ended.output
    first, second = project.checkpoints(NAME)
    # it goes on: the second has not begun from nothing
    assert second.metrics["loss"] < first.metrics["loss"]
    if "trees" in first.metrics:
        assert (first.metrics["trees"], second.metrics["trees"]) == (20, 40)


def refuses_another_order_of_columns(project: LiveProject, library: str) -> None:
    project.write(FILE, block("yaml").replace("2024-01-05", "2024-01-06"))
    project.write("operators/clicks.py", block("python", library).replace('["age", "hour"', '["hour", "age"'))
    source = project.root / "samples" / "2024-01-04.parquet"
    (project.root / "samples" / "2024-01-05.parquet").write_bytes(source.read_bytes())
    ended = project.start(FILE)
    assert ended.code == 1, ended.output
    assert 'features[0] was "age", and is "hour" now' in " ".join(ended.output.split())
    assert len(project.checkpoints(NAME)) == 2


@pytest.mark.parametrize("library", [library for library in LIBRARIES if library != "scikit-learn"])
def test_function_of_docs_trains_on_and_refuses_another_order_of_columns(tmp_path: Path, library: str) -> None:
    project = project_of(tmp_path / "project", library)
    trains_on(project)
    refuses_another_order_of_columns(project, library)


def test_function_for_sklearn_does_so_and_killed_in_the_middle_makes_the_same_model(tmp_path: Path) -> None:
    library = "scikit-learn"
    undisturbed, killed = (project_of(tmp_path / name, library) for name in ("undisturbed", "killed"))
    trains_on(undisturbed)

    hold, saved = killed.root / "hold", killed.root / "saved"
    save = "        ctx.save(batches.position, save"
    held = block("python", library).replace(f"{save})", f"{save}, every=0)\n        hold()")
    assert "hold()" in held
    killed.write("operators/clicks.py", held + HOLD.format(hold=hold, saved=saved))
    hold.touch()
    running = killed.begin_start(FILE)
    wait_for(saved.exists, lambda: running.output)
    assert all(child.kill() for child in killed.processes(ProcessKind.CHILD))
    hold.unlink()
    ended = running.wait()
    assert ended.code == 0, ended.output
    assert "goes on from row" in "".join(path.read_text() for path in killed.root.glob(".trainflow/logs/**/*.log"))
    for number in range(2):
        assert weights(killed, number) == weights(undisturbed, number)
    refuses_another_order_of_columns(undisturbed, library)
