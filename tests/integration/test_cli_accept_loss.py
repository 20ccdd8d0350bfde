"""`trainflow repair --accept-loss`: shown by default, done with --yes, told for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.conftest import CommandLine
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.settings.project import Project
from trainflow.storage.local import LocalStore
from trainflow.storage.store import SEAL
from trainflow.testing.chains import ChainWriter

YAML = """
pipeline: flights
samples: {path: "data/date={start:%Y-%m-%d}/", length: 1d, start: 2013-01-01, end: 2013-01-06}
train: {command: ["true"]}
"""


class Flights(CommandLine):
    """A chain of five days."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(project, capsys)
        self.writer = ChainWriter(LocalStore(self.root / "checkpoints"), self.root / "scratch")
        self.made = self.writer.commit_many(5)

    def lose(self, *numbers: int, copies: bool) -> None:
        for number in numbers:
            self.writer.store.delete(self.writer.chain.entry(number))
            if not copies:
                self.writer.store.delete(f"{self.made[number - 1].artifacts.path}{SEAL}")


@pytest.fixture
def flights(inside: Callable[..., Flights]) -> Flights:
    return inside(Flights, {"pipelines/flights.yaml": YAML})


def test_accept_loss_of_whole_ledger_does_nothing(flights: Flights) -> None:
    assert flights.run("repair", "flights", "--accept-loss", "--yes") == (
        0,
        "flights/main/main: nothing is missing in the ledger\n",
    )


def test_accept_loss_without_yes_shows_and_changes_nothing(flights: Flights) -> None:
    flights.lose(4, 5, copies=False)
    before = flights.writer.store.files("flights")
    code, said = flights.run("repair", "flights", "--accept-loss")
    assert code == 0
    assert "entries 4 to 5 are lost or cannot be tied to what is left" in said
    assert f"checkpoint {flights.made[4].id} is lost" in said
    assert f"it would go on from checkpoint 3 ({flights.made[2].id}), trained up to 2013-01-04T00:00Z" in said
    assert "nothing was changed" in said
    assert flights.writer.store.files("flights") == before
    assert flights.run("audit", "flights")[0] == 1


@pytest.mark.parametrize("copies", [False, True])
def test_accept_loss_with_yes_goes_on_and_audit_tells_it(flights: Flights, copies: bool) -> None:
    flights.lose(4, 5, copies=copies)
    done = flights.json("repair", "flights", "--accept-loss", "--yes", "--reason", "no backup")
    assert (done["restored"], done["entry"]) == (([4, 5], None) if copies else ([], 4))
    ledger = Ledger(flights.writer.store, flights.writer.chain)
    assert ledger.checkpoint().id == flights.made[4 if copies else 2].id
    _, said = flights.run("audit", "flights")
    assert ("entries 4 to 5 of an earlier ledger were lost" in said, "(no backup)" in said) == (not copies, not copies)
    assert "intact" in said
    assert flights.json("repair", "flights", "--accept-loss")["whole"]


def test_accept_loss_of_branch_waits_for_run_of_that_branch(flights: Flights, monkeypatch: pytest.MonkeyPatch) -> None:
    hot = ChainWriter(flights.writer.store, flights.root / "scratch", ChainKey("flights", branch="hot"))
    hot.commit_many(2)
    hot.store.delete(hot.chain.entry(2))
    before = hot.store.files("flights/main/hot")
    monkeypatch.setattr(
        "trainflow.workspace.workspace.Workspace.active_runs",
        lambda _, dag_id: [] if dag_id == "flights" else ["manual__1"],
    )

    code, said = flights.run("repair", "flights", "--branch", "hot", "--accept-loss", "--yes")

    assert code == 2, said
    assert "run manual__1 of flights.main.hot has not ended: nothing was changed" in said
    assert hot.store.files("flights/main/hot") == before


def test_yes_without_accept_loss_is_refused(flights: Flights) -> None:
    assert flights.run("repair", "flights", "--yes")[0] == 2
