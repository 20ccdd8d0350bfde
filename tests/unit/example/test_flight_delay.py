from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.clock import ManualClock
from trainflow.operators.training.save_points import Saved, SavePoints
from trainflow.operators.training.saves_folder import SAVE_FILE, FolderSaves
from trainflow.operators.training.training_context import EvaluateContext, ParentCheckpoint, TrainContext
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.samples.splits.split import Split

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT))
flights: Any = import_module("operators.flights")

START = datetime(2013, 1, 1, tzinfo=UTC)
DAYS = 6


def flight_delay() -> Any:
    """The module, imported when a test runs: scikit-learn takes a second, which each worker would pay to collect."""
    return import_module("operators.flight_delay")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first days of the real table."""
    root = tmp_path_factory.mktemp("project")
    for day, table in flights._flights_of([date(2013, 1, 1) + timedelta(days=n) for n in range(DAYS)]):
        flights.publish(flights.partition(root / "data" / "flights", day), table)
    return root


def split_of(project: Path, days: int, after: datetime | None = None) -> Split:
    samples = Samples(path="data/flights/date={start:%Y-%m-%d}/", length_seconds=86_400, start=START)
    found = next_split(samples, after, SplitLimits(partitions=days), START + timedelta(days=99), project)
    assert isinstance(found, SplitFound)
    return found.split.reached_by(root=project)


@dataclass
class Bench:
    """Runs the functions as the operators do."""

    project: Path
    folder: Path
    params: dict[str, Any] = field(default_factory=dict)
    reported: list[float] = field(default_factory=list)
    on_report: Callable[[], None] = lambda: None
    #: a batch takes 25 seconds
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))

    def train(self, split: Split, name: str, parent: Path | None = None) -> dict[str, float]:
        output = self.folder / name
        output.mkdir(exist_ok=True)
        found: dict[str, float] = flight_delay().train(
            TrainContext(
                **self._common(split, name),
                parent=self._parent(parent, split) if parent else None,
                output=output,
                _saves=self._save_points(name),
            )
        )
        return found

    def _save_points(self, name: str) -> SavePoints:
        folder = self.folder / "saves" / name
        folder.mkdir(parents=True)
        saved = None
        for newest in sorted(folder.parent.glob("*/*")):
            told = json.loads((newest / SAVE_FILE).read_text())
            saved = Saved(told["position"], newest, told["state"])
        never_stopped = SimpleNamespace(hold=lambda: None, requested=False)
        return SavePoints(FolderSaves(folder, saved), never_stopped, self.clock, logging.getLogger("bench"))

    def evaluate(self, split: Split, parent: Path) -> dict[str, float]:
        context = EvaluateContext(**self._common(split, "evaluate"), parent=self._parent(parent, split))
        found: dict[str, float] = flight_delay().evaluate(context)
        return found

    def _parent(self, path: Path, split: Split) -> ParentCheckpoint:
        return ParentCheckpoint(id="parent", number=1, watermark=split.start, path=path)

    def _common(self, split: Split, name: str) -> dict[str, Any]:
        return {
            "split": split,
            "params": self.params,
            "seed": 7,
            "run_id": "run",
            "attempt_id": name,
            "logger": logging.getLogger("bench"),
            "project_root": self.project,
            "_report": self._report,
        }

    def _report(self, done: float, *_: Any, **__: Any) -> None:
        self.reported.append(done)
        self.clock.advance(timedelta(seconds=25))
        self.on_report()


@pytest.fixture
def bench(project: Path, tmp_path: Path) -> Bench:
    return Bench(project, tmp_path)


def weights(folder: Path) -> dict[str, Any]:
    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_flight_delay_beats_chance_on_unseen_days(bench: Bench) -> None:
    first, second = split_of(bench.project, 4), split_of(bench.project, 2, START + timedelta(days=4))
    trained = bench.train(first, "a")
    scores = bench.evaluate(second, bench.folder / "a")
    assert scores["auc"] > 0.55
    assert scores["log_loss"] < np.log(2)
    assert 0.0 < scores["brier"] < 0.25
    assert 0.1 < scores["base_rate"] < 0.5
    assert trained["loss"] < np.log(2)
    assert bench.reported[-1] == first.rows


def test_model_for_one_airport_learns_from_its_flights_only(bench: Bench) -> None:
    split = split_of(bench.project, 2)
    origins = [origin for batch in split.batches(columns=["origin"]) for origin in batch["origin"].to_pylist()]
    everywhere = bench.train(split, "all")
    counts = {}
    for airport in ("EWR", "JFK", "LGA"):
        bench.params = {"origin": airport}
        counts[airport] = bench.train(split, airport, bench.folder / "all")["trained_rows"]
        assert 0 < counts[airport] <= origins.count(airport)
        assert bench.evaluate(split, bench.folder / airport)["rows"] == counts[airport]
        assert bench.reported[-1] == split.rows
    assert sum(counts.values()) == everywhere["trained_rows"]


def test_checkpoint_is_one_file_without_pickle(bench: Bench) -> None:
    bench.train(split_of(bench.project, 1), "a")
    assert [file.name for file in (bench.folder / "a").iterdir()] == ["model.npz"]
    assert {name: array.dtype.hasobject for name, array in weights(bench.folder / "a").items()} == {
        "coef": False,
        "intercept": False,
        "t": False,
    }


def test_flight_delay_same_split_and_parent_give_same_weights(bench: Bench) -> None:
    bench.train(split_of(bench.project, 1), "parent")
    for name in ("a", "b"):
        bench.train(split_of(bench.project, 2, START + timedelta(days=1)), name, bench.folder / "parent")
    assert same(weights(bench.folder / "a"), weights(bench.folder / "b"))
    assert not same(weights(bench.folder / "a"), weights(bench.folder / "parent"))


def test_flight_delay_saved_and_loaded_model_continues_identically(bench: Bench) -> None:
    one, two = split_of(bench.project, 1), split_of(bench.project, 1, START + timedelta(days=1))
    params = flight_delay().DEFAULTS
    kept = flight_delay().new_model(params)
    for split in (one, two):
        for batch in split.batches(columns=[*flight_delay().COLUMNS, "arr_delay"], batch_size=2048, seed=7):
            kept.partial_fit(*flight_delay().examples(batch, params["bits"]))
    bench.train(one, "one")
    bench.train(two, "two", bench.folder / "one")
    found = weights(bench.folder / "two")
    assert np.array_equal(found["coef"], kept.coef_)
    assert np.array_equal(found["intercept"], kept.intercept_)
    assert found["t"] == kept.t_ > 1500


def test_flight_delay_killed_inside_split_resumes_to_same_weights(bench: Bench) -> None:
    bench.params = {"batch_rows": 200}
    split = split_of(bench.project, 2)
    whole = bench.train(split, "whole")
    bench.reported.clear()

    def kill_at_the_seventh() -> None:
        if len(bench.reported) == 7:
            raise KeyboardInterrupt

    bench.folder.joinpath("saves").rename(bench.folder / "saves of the whole")
    bench.on_report = kill_at_the_seventh
    with pytest.raises(KeyboardInterrupt):
        bench.train(split, "try1")
    bench.on_report = lambda: None
    bench.reported.clear()

    resumed = bench.train(split, "try2")
    assert bench.reported[0] == 1400  # the save at row 1200, and a batch
    assert bench.reported[-1] == split.rows
    assert same(weights(bench.folder / "try2"), weights(bench.folder / "whole"))
    assert resumed == whole


def test_flight_delay_other_number_of_weights_is_refused(bench: Bench) -> None:
    split = split_of(bench.project, 1)
    bench.train(split, "a")
    bench.params = {"bits": 10}
    with pytest.raises(ValueError, match=r"has 16384 weights, params\.bits = 10"):
        bench.train(split, "b", bench.folder / "a")


# -- features ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def day(project: Path) -> pa.RecordBatch:
    table = pq.read_table(project / "data" / "flights" / "date=2013-01-02" / "part-0.parquet", partitioning=None)
    return table.combine_chunks().to_batches()[0]


def test_flight_delay_reads_nothing_known_only_after_departure() -> None:
    later = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}
    assert not later & set(flight_delay().COLUMNS)


def test_label_does_not_reach_features(day: pa.RecordBatch) -> None:
    arrived = day.filter(day["arr_delay"].is_valid())
    known, late = flight_delay().examples(arrived, 14)
    turned = arrived.set_column(
        arrived.schema.get_field_index("arr_delay"), "arr_delay", pa.array(np.where(late == 1, 0.0, 60.0))
    )
    unknown, other = flight_delay().examples(turned, 14)
    assert np.array_equal(known.indices, unknown.indices)
    assert np.array_equal(other, 1 - late)


def test_flights_that_never_arrived_are_left_out(day: pa.RecordBatch) -> None:
    features, late = flight_delay().examples(day, 14)
    assert len(late) == features.shape[0] == day.num_rows - day["arr_delay"].null_count < day.num_rows
    assert late.mean() == np.mean([delay > 15 for delay in day["arr_delay"].to_pylist() if delay is not None])


def test_day_on_which_nothing_arrived_changes_nothing(day: pa.RecordBatch) -> None:
    model = flight_delay().new_model(flight_delay().DEFAULTS)
    cancelled = day.filter(day["arr_delay"].is_null())
    so_far = flight_delay().learn(model, cancelled, flight_delay().DEFAULTS, {"rows": 5, "trained": 5, "loss": 1.0})
    assert so_far == {"rows": 5 + cancelled.num_rows, "trained": 5, "loss": 1.0}
    assert not model.coef_.any()
    assert flight_delay().scores(np.array([]), np.array([])) == {"rows": 0.0}


def test_value_has_same_hash_in_every_process_and_version() -> None:
    batch = pa.record_batch(
        {
            **{name: pa.array([value]) for name, value in (("carrier", "UA"), ("origin", "EWR"), ("dest", "IAH"))},
            **{name: pa.array([value], pa.int32()) for name, value in (("hour", 5), ("month", 1), ("distance", 1400))},
            **{name: pa.array([value], pa.int32()) for name, value in (("year", 2013), ("day", 1))},
            "arr_delay": pa.array([11.0], pa.float32()),
        }
    )
    features, late = flight_delay().examples(batch, 14)
    pinned = [9955, 6333, 16080, 12838, 1452, 9445, 5457, 14853, 805, 6604, 12178, 6999, 4087, 11937]
    assert features.indices.tolist() == pinned
    assert late.tolist() == [0]


# -- metrics -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_auc_is_share_of_pairs_ranked_right(pairs: list[tuple[int, bool]]) -> None:
    found = np.array([score / 5 for score, _ in pairs])
    expected = np.array([int(late) for _, late in pairs])
    late, in_time = found[expected == 1], found[expected == 0]
    comparisons = [(a > b) + (a == b) / 2 for a in late for b in in_time]
    assert flight_delay().auc(found, expected) == pytest.approx(np.mean(comparisons) if comparisons else 0.5)


def test_sure_and_wrong_answer_costs_much_and_never_infinitely_much() -> None:
    model = flight_delay().new_model(flight_delay().DEFAULTS | {"bits": 1})
    model.coef_[:] = 1e9
    features = flight_delay().csr_matrix(np.array([[1.0, 0.0]]))
    assert 10 < flight_delay().log_loss(flight_delay().probabilities(model, features), np.array([0])) < 100
