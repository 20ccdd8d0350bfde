"""Decisions about a chain, called as functions: what a plan leaves alone, and what is done in whose name and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tests.support.command_line import CommandLine
from tests.unit.checkpoints.refused_commits import refused
from trainflow.actions.chains.fork import BranchRequest, fork, plan_fork
from trainflow.actions.chains.promote import plan_promote, promote
from trainflow.actions.chains.prune import (
    forget_dependent,
    plan_forget_dependent,
    plan_prune,
    plan_sweep,
    prune,
    sweep,
)
from trainflow.actions.chains.regrid import plan_regrid
from trainflow.actions.chains.repair import plan_repair
from trainflow.actions.chains.resume import Decision, ResumeRequest, plan_resume, resume
from trainflow.actions.chains.rewind import plan_rewind, rewind
from trainflow.actions.engine_client import train_through_engine
from trainflow.actions.start import request_training
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger.entries import Author, LedgerEntry
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.stages.dependents import add_dependent
from trainflow.checkpoints.stages.init_from import Dependent
from trainflow.clock import SystemClock
from trainflow.errors import ChainMoved, ChainStopped, InputError
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter
from trainflow.workspace.branches import overrides_of_branch
from trainflow.workspace.pipelines import OpenedPipeline, open_pipeline
from trainflow.workspace.workspace import open_workspace

YAML = """
pipeline: flights
samples: {path: "data/date={start:%Y-%m-%d}/", length: 1d, start: 2013-01-01, end: 2013-02-01}
train: {command: ["true"]}
"""
NOW = datetime(2030, 5, 1, tzinfo=UTC)
ANN = Author(hostname="here", person="ann@here")


class Flights(NamedTuple):
    """A chain of four checkpoints, and its file."""

    root: Path
    file: OpenedPipeline
    writer: ChainWriter

    @property
    def newest(self) -> LedgerEntry:
        return list(self.writer.ledger.entries())[-1]

    def snapshot(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def flights(inside: Callable[..., CommandLine]) -> Iterator[Flights]:
    root = inside(CommandLine, {"pipelines/flights.yaml": YAML}).root
    writer = ChainWriter(LocalStore(root / "checkpoints"), root / "scratch")
    writer.commit_many(4)
    with open_pipeline("flights") as file:
        yield Flights(root, file, writer)


PLANS: dict[str, Callable[[OpenedPipeline], object]] = {
    "rewind": lambda file: plan_rewind(file.one_chain(), to="2", before=None, now=NOW).outcome(dry_run=True),
    "fork": lambda file: plan_fork(file, BranchRequest(branch="hot")).outcome(dry_run=True),
    "prune": lambda file: plan_prune(file.chosen(), 1, now=NOW),
    "sweep": lambda file: plan_sweep(file, None, None, grace=timedelta(0), now=NOW),
    "regrid": lambda file: plan_regrid(file.one_chain(), now=NOW).outcome(None, dry_run=True),
    "promote": lambda file: plan_promote(file, file.one_chain(), "2", "champion", now=NOW),
    "repair": lambda file: plan_repair(file.one_chain(), skipped=True, now=NOW),
}


@pytest.mark.parametrize("name", PLANS)
def test_plan_changes_nothing(flights: Flights, name: str) -> None:
    before = flights.snapshot()

    PLANS[name](flights.file)

    assert flights.snapshot() == before


def test_rewind_does_what_its_plan_says(flights: Flights) -> None:
    plan = plan_rewind(flights.file.one_chain(), to="2", before=None, now=NOW)

    done = rewind(flights.file, flights.file.one_chain(), plan, who=ANN, now=NOW, reason="bad day")

    assert (done.rewound, done.dry_run) == (plan.outcome(dry_run=True).rewound, False)
    assert (flights.newest.at, flights.newest.by) == (NOW, Author(dag_id="flights", hostname="here", person="ann@here"))


def test_rewind_when_chain_has_moved_on_is_refused(flights: Flights) -> None:
    plan = plan_rewind(flights.file.one_chain(), to="2", before=None, now=NOW)
    flights.writer.commit()

    with pytest.raises(ChainMoved, match="nothing was rewound"):
        rewind(flights.file, flights.file.one_chain(), plan, who=ANN, now=NOW)


def test_prune_does_what_its_plan_says(flights: Flights) -> None:
    plan = plan_prune(flights.file.chosen(), 1, now=NOW)

    done = prune(flights.file.chosen(), 1, who=ANN, now=NOW)

    assert (done.pruned, len(done.pruned), done.dry_run) == (plan.pruned, 3, False)
    assert [each.sequence for each in flights.writer.ledger.kept()] == [4]


def test_sweep_does_what_its_plan_says(flights: Flights) -> None:
    prune(flights.file.chosen(), 1, who=ANN, now=NOW)
    later = NOW + timedelta(days=9)
    plan = plan_sweep(flights.file, None, None, grace=timedelta(days=7), now=later)

    done = sweep(flights.file, None, None, grace=timedelta(days=7), now=later)

    assert (done.swept, done.dry_run) == (plan.swept, False)


def test_promote_twice_says_it_was_so_already(flights: Flights) -> None:
    chain = flights.file.one_chain()

    found = [promote(flights.file, chain, "2", "champion", who=ANN, now=NOW) for _ in range(2)]

    assert [(each.number, each.promoted) for each in found] == [(2, True), (2, False)]
    assert not flights.file.workspace.project.home.database.exists()


def test_promote_does_what_its_plan_says(flights: Flights) -> None:
    chain = flights.file.one_chain()
    plan = plan_promote(flights.file, chain, "2", "champion", now=NOW)

    done = promote(flights.file, chain, "2", "champion", who=ANN, now=NOW)

    assert (plan, plan.promoted) == (msgspec.structs.replace(done, dry_run=True), True)
    assert not plan_promote(flights.file, chain, "2", "champion", now=NOW).promoted


@pytest.mark.parametrize("decision", ["accept", "skip", "rewind", "again"])
def test_resume_does_what_its_plan_says(flights: Flights, decision: Decision) -> None:
    with pytest.raises(ChainStopped):
        commit(flights.writer.store, refused(flights.writer, "stop"), NOW)
    asked = ResumeRequest(decision=decision, rewind=1 if decision == "rewind" else 0)
    before = flights.snapshot()

    plan = plan_resume(flights.file, asked, now=NOW)

    assert flights.snapshot() == before
    assert plan is not None
    assert resume(flights.file, asked, who=ANN, now=NOW) == plan
    assert flights.writer.ledger.state().stopped is None


def test_resume_plan_refuses_what_resume_refuses(flights: Flights) -> None:
    with pytest.raises(InputError, match="nothing to decide about"):
        plan_resume(flights.file, ResumeRequest(), now=NOW)


def test_forget_dependent_forgets_what_its_plan_says(flights: Flights) -> None:
    chain, nights = flights.file.one_chain(), ChainKey("nights")
    add_dependent(flights.writer.store, chain.key, Dependent(nights, "same_watermark"))
    before = flights.snapshot()

    plan = plan_forget_dependent(chain, str(nights))

    assert (plan.chain, plan.held, flights.snapshot()) == (str(nights), 4, before)
    assert forget_dependent(chain, str(nights)) == plan
    with pytest.raises(InputError, match="does not follow"):
        plan_forget_dependent(chain, str(nights))


def test_branch_of_yaml_is_found_without_reading_file(flights: Flights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine reads it: once, with what the fork says."""
    asked = BranchRequest(branch="hot", overrides={"split.partitions": "5"})
    fork(plan_fork(flights.file, asked), who=ANN, now=NOW)
    monkeypatch.setattr("trainflow.workspace.pipeline_file.read_file", lambda *_: pytest.fail("it was read"))
    path = flights.root / "pipelines/flights.yaml"

    found = overrides_of_branch(open_workspace(path), path, "hot", {"split.rows": "9"})

    assert found == {"branch": "hot", "split.partitions": "5", "split.rows": "9"}
    assert Ledger(flights.writer.store, ChainKey("flights", branch="hot")).state().sequence == 1


def test_train_through_engine_does_not_read_again_what_was_read(
    flights: Flights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `resume` and `repair` look at a pipeline before they have it trained."""
    request = request_training(flights.file.path, {}, parsed=flights.file.parsed)
    monkeypatch.setattr("trainflow.workspace.pipeline_file.read_file", lambda *_: pytest.fail("it was read"))

    with train_through_engine(request, SystemClock(), print) as (_, feeds):
        assert [each.dag_id for each in feeds] == ["flights"]
