"""Commands about what is not there yet: a chain that is not stopped, a branch that has trained nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.conftest import CommandLine
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.fork import fork
from trainflow.errors import ChainStopped
from trainflow.messages.workload import ParseResult
from trainflow.settings.project import Project
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, split_of

YAML = """
pipeline: flights
samples: {path: "data/date={start:%Y-%m-%d}/", length: 1d, start: 2013-01-01, end: 2013-01-03}
train: {command: ["true"]}
"""


class Flights(CommandLine):
    """A chain of two days, whose table ends there, and a branch of it."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(project, capsys)
        self.writer = ChainWriter(LocalStore(self.root / "checkpoints"), self.root / "scratch")
        *_, head = self.writer.commit_many(2, metrics={"auc": 0.9})
        hot = Ledger(self.writer.store, ChainKey("flights", branch="hot"))
        origin = CheckpointRef(self.writer.chain, head.id)
        fork(hot, origin, head.watermark, by=Author(person="me"), now=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def flights(inside: Callable[..., Flights]) -> Flights:
    return inside(Flights, {"pipelines/flights.yaml": YAML})


@pytest.mark.parametrize("options", [(), ("--accept",), ("--skip",), ("--rewind", "1"), ("--no-start",)])
def test_resume_of_chain_that_is_not_stopped_is_refused_and_starts_nothing(
    flights: Flights, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("trainflow.cli.start_or_follow.train", lambda *_, **__: pytest.fail("it was started"))
    before = sorted(path for path in Path(flights.root).rglob("*") if ".trainflow" not in path.parts)
    code, said = flights.run("resume", "flights", *options)
    assert (code, "nothing was started" in said, "'trainflow start " in said) == (2, True, True), said
    assert sorted(path for path in Path(flights.root).rglob("*") if ".trainflow" not in path.parts) == before


def test_resume_of_chain_that_is_stopped_starts(flights: Flights, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr("trainflow.cli.start_or_follow.train", lambda *_, **__: started.append(1) or 0)
    with pytest.raises(ChainStopped):
        flights.writer.commit(gates=(Gate("auc >= 0.5"),), metrics={"auc": 0.1})
    assert flights.run("resume", "flights")[0] == 0
    assert started == [1]


def test_resume_of_branch_starts_it_and_no_other(flights: Flights, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[dict[str, str], list[str]]] = []

    def train(path: Path, overrides: dict[str, str], *, parsed: ParseResult, **_: object) -> int:
        started.append((overrides, [dag.dag_id for dag in parsed.dags]))
        return 0

    monkeypatch.setattr("trainflow.cli.start_or_follow.train", train)
    hot = ChainWriter(flights.writer.store, flights.root / "hot", ChainKey("flights", branch="hot"))
    origin = CheckpointRef(flights.writer.chain, Ledger(hot.store, flights.writer.chain).checkpoint().id)
    with pytest.raises(ChainStopped):
        hot.commit(split=split_of(2), gates=(Gate("auc >= 0.5"),), metrics={"auc": 0.1}, origin=origin)
    assert flights.run("resume", "flights", "--branch", "hot")[0] == 0
    assert started == [({"branch": "hot"}, ["flights.main.hot"])]


@pytest.mark.parametrize(("sides", "untrained"), [(("main", "hot"), "B"), (("hot", "main"), "A")])
def test_compare_with_untrained_branch_says_it_and_prints_no_empty_column(
    flights: Flights, sides: tuple[str, str], untrained: str
) -> None:
    code, said = flights.run("checkpoints", "compare", "flights", *sides)
    assert (code, f"{untrained} has no metrics of its own yet to compare" in said) == (0, True), said
    assert f"{untrained} auc" not in said


def test_why_of_branch_speaks_of_that_branch_alone(flights: Flights) -> None:
    code, said = flights.run("why", "flights", "--branch", "hot")
    assert (code, said.count("\n")) == (0, 1), said
    assert said.startswith(
        "flights.main.hot: no run of it is in this home, its chain has trained nothing yet (2013-01-"
    )
    assert "'trainflow start pipelines/flights.yaml --branch hot' says whether it is valid" in said
    assert flights.json("why", "flights", "--branch", "main")["dag_id"] == "flights"
    assert flights.json("why", "flights", "--stage", "main")["dag_id"] == "flights"


def test_why_of_branch_that_is_not_there_names_those_that_are(flights: Flights) -> None:
    code, said = flights.run("why", "flights", "--branch", "hut")
    assert (code, "has no branch 'hut'; did you mean 'hot'?" in said) == (2, True), said
