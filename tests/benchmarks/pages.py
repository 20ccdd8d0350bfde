"""The calendar of a chain of 200,000 partitions in a real browser: first paint, payload, frames while one moves."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.workbench import show
from tests.support.browser import chromium
from trainflow.actions.dags import read_into_database
from trainflow.api.server import ApiServer
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import (
    ArtifactFile,
    Artifacts,
    Author,
    Checkpoint,
    HoleRecord,
    SplitSummary,
    TrainedPartition,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.clock import SystemClock
from trainflow.identifiers import digest
from trainflow.insight.chains.partition_states import PartitionStatus
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at
from trainflow.storage.urls import open_store
from trainflow.testing.chains import attempt_id
from trainflow.testing.contract_engine import api_in_thread, listening
from trainflow.workspace.workspace import Workspace

#: partitions of a checkpoint: 14 of them make a ledger of 14,286 entries, which takes minutes to write
A_SPLIT = int(os.environ.get("PAGES_SPLIT", "140"))
PARTITIONS, HOLES, REPUBLISHED = 200_000, 400, 150
START, LENGTH = datetime(2023, 1, 1, tzinfo=UTC), timedelta(minutes=5)
PIPELINE = """\
pipeline: long
samples: {path: "data/{start:%Y-%m-%dT%H%M}/", length: 5m, start: 2023-01-01}
split: {partitions: 14}
train: {command: ["true"]}
"""


def main(rounds: int = 5) -> None:
    """Print what a person waits for, and what one sees of a frame."""
    with tempfile.TemporaryDirectory(prefix="trainflow-bench-") as folder:
        root = Path(folder)
        for name, text in (("configs/trainflow.toml", ""), ("pipelines/long.yaml", PIPELINE)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        ledger = Ledger(open_store("checkpoints", root=root), ChainKey("long"))
        for first in range(0, PARTITIONS, A_SPLIT):
            ledger.append(partial(_entry, ledger, first))
        _measure(root, rounds)


def _entry(ledger: Ledger, first: int, state: ChainState) -> Checkpoint:
    numbers = range(first, min(first + A_SPLIT, PARTITIONS))
    gap = PARTITIONS // HOLES
    holes = [number for number in numbers if number % gap == gap // 2]
    trained = [TrainedPartition(_at(n), _at(n + 1), "sha256:0", 10) for n in numbers if n not in holes]
    split = SplitSummary(
        start=_at(first),
        end=_at(numbers[-1] + 1),
        partitions=trained,
        holes=[HoleRecord(_at(n), _at(n + 1), "missing") for n in holes],
    )
    name = attempt_id(state.sequence)
    return Checkpoint(
        **state.header(Author(f"run-{first}", name), split.end),
        id=name,
        number=state.last_number + 1,
        parent_id=state.head.id if state.head else None,
        watermark=split.end,
        split=split,
        artifacts=Artifacts(ledger.chain.attempt(name), [ArtifactFile("model.bin", 7, digest(name.encode()))]),
        metrics={"loss": 1.0 / (1 + first)},
        evaluation={"auc": 0.5 + first / PARTITIONS / 3},
    )


def _at(number: int) -> datetime:
    return START + number * LENGTH


def _measure(root: Path, rounds: int) -> None:
    project = project_at(root)
    with Workspace.of(project) as workspace:
        read_into_database(workspace, root / "pipelines/long.yaml", SystemClock().now())
    listener = listening()
    server = ApiServer(project, load_settings(project), SystemClock(), listener)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}/chains/long/main/main"
    again = [_at(n * (PARTITIONS // REPUBLISHED) + 7) for n in range(REPUBLISHED)]
    with api_in_thread(server), chromium() as browser:
        site = server.web.pages.made().site
        seen = [(start, start + LENGTH, PartitionStatus.REPUBLISHED) for start in again]
        site.seen_of = lambda _opened, _look: seen
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        paints, drawn, sizes = [], [], []
        for _ in range(rounds + 1):
            page.goto(base)
            _wait(page, "performance.getEntriesByName('calendar-drawn').length > 0")
            paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            drawn.append(page.evaluate("performance.getEntriesByName('calendar-drawn')[0].startTime"))
            size = "performance.getEntriesByType('resource').find(each => each.name.includes('calendar.json'))"
            sizes.append(page.evaluate(f"({size}).decodedBodySize") / 1024)
        show("pages: first paint, first visit", paints[:1], "ms", "≤ 300 ms")
        show("pages: first paint", paints[1:], "ms", "≤ 300 ms")
        show("pages: calendar drawn", drawn[1:], "ms", "")
        show("pages: payload", sizes[1:], "KiB", "≤ 50 KiB")
        for what, keys in (
            ("all of it, then nearer", ["0", *["+"] * 30]),
            ("moving far away", ["0", "+", *["Shift+ArrowLeft"] * 40]),
            ("moving near", [*["+"] * 10, *["ArrowRight"] * 60]),
        ):
            show(f"pages: frame, {what}", _frames(page, keys), "ms", "≤ 16 ms")


def _frames(page: Any, keys: list[str]) -> list[float]:
    page.focus("#calendar-canvas")
    page.evaluate("document.getElementById('calendar-canvas').frameTimes.length = 0")
    for key in keys:
        page.keyboard.press(key)
    _wait(page, "document.getElementById('calendar-canvas').frameTimes.length > 3")
    found: list[float] = page.evaluate("document.getElementById('calendar-canvas').frameTimes")
    return found


def _wait(page: Any, condition: str) -> None:
    until = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < until, condition
        time.sleep(0.02)


if __name__ == "__main__":
    main()
