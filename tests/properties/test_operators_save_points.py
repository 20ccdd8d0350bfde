"""Killed and resumed, a training sees the rows that an undisturbed one sees: each once, in the same order.

Wherever it is killed, however often, with whatever number of workers it goes on. What it has seen is asked of the model
itself, which is the list of the ids of its rows; no word of a trainer that it resumed counts.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sample_files import described_file
from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.saves.intermediate_saves import IntermediateSaves
from trainflow.checkpoints.saves.training_identity import training_name
from trainflow.clock import ManualClock
from trainflow.operators.training.save_points import OtherRankSaves, SavePoints, StoredSaves
from trainflow.operators.training.training_context import TrainContext
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import partition_of
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.storage.urls import open_storage
from trainflow.task_signals import TaskPreempted
from trainflow.testing.chains import attempt_id

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
BATCH = 8
#: row groups of each file
SHAPES = ((5, 5, 3), (8,), (), (16, 1), (7,))
ROWS = sum(sum(shape) for shape in SHAPES)
SEED = 7


class Killed(BaseException):
    """Nothing of the process is left."""


class AttemptEnd(NamedTuple):
    """How an attempt ends: it is killed once the model has so many rows (None: never); while it `writes` a save,
    or before, or it is told to stop then."""

    row: int | None
    how: str = "kill"
    world_size: int = 1


@pytest.fixture(scope="module")
def split() -> Iterator[Split]:
    with tempfile.TemporaryDirectory() as name:
        partitions, first = [], 0
        for number, shape in enumerate(SHAPES):
            path = Path(name) / f"{number}.parquet"
            schema = pa.schema([("id", pa.int64())])
            with pq.ParquetWriter(path, schema) as writer:
                for rows in shape:
                    writer.write_table(pa.table({"id": list(range(first, first + rows))}, schema))
                    first += rows
            file = described_file(open_storage(".", {}, None), str(path))
            partitions.append(partition_of(START + number * DAY, START + (number + 1) * DAY, (file,)))
        yield Split(START, START + len(SHAPES) * DAY, 86400, tuple(partitions))


class Training:
    """Attempts at one training, each a process that forgets everything."""

    def __init__(self, split: Split, store: Store, scratch: Path, shuffle: bool) -> None:
        self.split = split
        self.shuffle = shuffle
        self.saved_rows: list[int] = []
        self._store = store
        self._scratch = scratch
        self._attempts = 0

    def attempt(self, end: AttemptEnd) -> list[int] | None:
        """The model when it came to the end, None when it did not."""
        self._attempts += 1
        told = SimpleNamespace(hold=lambda: None, requested=False)
        try:
            return self._train(self._context(told), end, told)
        except (Killed, TaskPreempted):
            return None

    def _context(self, told: SimpleNamespace) -> TrainContext:
        name, attempt = training_name(None, self.split.digest), attempt_id(self._attempts)
        saves = IntermediateSaves(self._store, ChainKey("model"), name, attempt, self._scratch / attempt)
        clock = ManualClock(START)
        ti = SimpleNamespace(clock=clock, report_saved=self.saved_rows.append)
        log = logging.getLogger("resume")
        return TrainContext(
            split=self.split,
            params={},
            seed=SEED,
            run_id="run",
            attempt_id=attempt,
            logger=log,
            project_root=self._scratch,
            _report=lambda *_, **__: None,
            parent=None,
            output=self._scratch,
            _saves=SavePoints(StoredSaves(saves, ti, self.split), told, clock, log),  # type: ignore[arg-type]
        )

    def _train(self, ctx: TrainContext, end: AttemptEnd, told: SimpleNamespace) -> list[int]:
        model: list[int] = json.loads((ctx.start / "rows.json").read_text()) if ctx.start else []

        def write(folder: Path) -> None:
            (folder / "rows.json").write_text(json.dumps(model[: len(model) // 2]))
            if end.how == "write" and end.row is not None and len(model) >= end.row:
                raise Killed
            (folder / "rows.json").write_text(json.dumps(model))

        contexts = [
            replace(ctx, rank=rank, world_size=end.world_size, _saves=OtherRankSaves(ctx.saved) if rank else ctx._saves)
            for rank in range(end.world_size)
        ]
        ranks = [each.batches(batch_size=BATCH, shuffle=self.shuffle) for each in contexts]
        try:
            while True:
                # what the ranks do at the same time is one step
                step = [batch for batch in (next(reader, None) for reader in ranks) if batch is not None]
                for batch in step:
                    for row in batch["id"].to_pylist():
                        self._meet(end, told, len(model))
                        model.append(row)
                self._meet(end, told, len(model))
                if not step:
                    return model
                # the first one comes last: it ends them all where it was told to stop
                for each, reader in zip(reversed(contexts), reversed(ranks), strict=True):
                    assert each.save(reader.position, write, every=0) or each.rank or not model
        finally:
            for reader in ranks:
                reader.close()

    @staticmethod
    def _meet(end: AttemptEnd, told: SimpleNamespace, rows: int) -> None:
        if end.row == rows and end.how == "kill":
            raise Killed
        if end.row == rows and end.how == "stop":
            told.requested = True


def stream(split: Split, shuffle: bool) -> list[int]:
    seed = SEED if shuffle else None
    found = [row for batch in split.batches(seed=seed) for row in batch["id"].to_pylist()]
    assert sorted(found) == list(range(ROWS))
    assert shuffle == (found != sorted(found))
    return found


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("how", ["kill", "write", "stop"])
def test_disturbed_at_any_row_it_ends_as_if_undisturbed(split: Split, tmp_path: Path, how: str, shuffle: bool) -> None:
    """Row 0, row 1, the edges of batches and of files, the last row but one, the last, and all between."""
    for row in range(ROWS + 1):
        store = LocalStore(tmp_path / str(row)) if how == "write" else MemoryStore()
        training = Training(split, store, tmp_path / "scratch", shuffle)
        assert training.attempt(AttemptEnd(row, how)) is None
        saved = training.saved_rows[-1] if training.saved_rows else 0
        # killed, it loses less than what is between two saves; told to stop, nothing
        assert row <= saved <= row + BATCH if how == "stop" else row - BATCH <= saved <= row
        assert training.attempt(AttemptEnd(None)) == stream(split, shuffle)


@pytest.mark.parametrize("shuffle", [False, True])
def test_resume_killed_at_each_row_sees_same_rows(split: Split, tmp_path: Path, shuffle: bool) -> None:
    training = Training(split, MemoryStore(), tmp_path, shuffle)
    for row in range(ROWS + 1):
        training.attempt(AttemptEnd(row))
    assert training.attempt(AttemptEnd(None)) == stream(split, shuffle)
    assert training.saved_rows == sorted(set(training.saved_rows))


@pytest.mark.parametrize("shuffle", [False, True])
def test_resume_with_one_two_three_workers_sees_same_rows(split: Split, tmp_path: Path, shuffle: bool) -> None:
    for row in range(1, ROWS):
        training = Training(split, MemoryStore(), tmp_path, shuffle)
        training.attempt(AttemptEnd(row // 2, world_size=1))
        training.attempt(AttemptEnd(row, world_size=2))
        assert training.attempt(AttemptEnd(None, world_size=3)) == stream(split, shuffle)


ends = st.builds(
    AttemptEnd,
    row=st.integers(0, ROWS),
    how=st.sampled_from(["kill", "write", "stop"]),
    world_size=st.integers(1, 5),
)


@settings(max_examples=60)
@given(disturbances=st.lists(ends, max_size=6), last=st.integers(1, 5), shuffle=st.booleans())
def test_resume_after_anything_sees_each_row_once_in_order(
    split: Split, tmp_path: Path, disturbances: list[AttemptEnd], last: int, shuffle: bool
) -> None:
    training = Training(split, MemoryStore(), tmp_path, shuffle)
    for end in disturbances:
        training.attempt(end)
    assert training.attempt(AttemptEnd(None, world_size=last)) == stream(split, shuffle)
