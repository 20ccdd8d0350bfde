"""The simulation can fail: for each rule of a chain - stages, partials, retention, gates, repair, replay - a bug is
planted, and must be found within a few seeds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.simulation import chain_ends, people
from tests.simulation.memory_store import MemoryStore
from tests.simulation.pipeline import BRANCH
from tests.simulation.plan import FaultKind as F
from tests.simulation.plan import Shape
from tests.simulation.planted_bug import PlantedBug, refuse_no_entry
from tests.simulation.table import LENGTH, START
from trainflow.checkpoints.commit import commit, commit_decision
from trainflow.checkpoints.commit.gates import CommitCheckpoint
from trainflow.checkpoints.ledger import fold, missing_checkpoints, missing_entries, rules
from trainflow.checkpoints.ledger_changes import prune, regrid
from trainflow.checkpoints.saves import intermediate_saves, training_identity
from trainflow.checkpoints.upkeep import changed_samples, retention
from trainflow.operators import checkpoint, data_checker, trigger_dagrun
from trainflow.operators.chain import automatic_rewinds, chain_operator
from trainflow.operators.training import save_points
from trainflow.samples.files import file_binding
from trainflow.samples.splits import next_split
from trainflow.samples.splits.split import SplitBuilder
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.readiness import PartitionState, Readiness

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

THREE: dict[str, Any] = {
    "shape": Shape.ALONE,
    "gate": None,
    "bad": (),
    "newer_than": None,
    "keep": None,
    "homes": 1,
    "empty": (),
    "partitions": 3,
    "present": (0, 1, 2),
    "arrivals": (),
    "limit": 1,
}


# -- the ledger ------------------------------------------------------------------------------------------------------


def create_over_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """The store does not create exclusively."""
    patch.setattr(MemoryStore, "create_exclusive", MemoryStore.replace)
    patch.setattr("trainflow.operators.checkpoint.probe_store", lambda *_: None)


def take_a_short_ledger_for_whole(patch: pytest.MonkeyPatch) -> None:
    """What is left of a ledger that has lost its tail is gone on from."""
    patch.setattr(missing_entries, "raise_unless_whole", lambda *_: None)
    patch.setattr(missing_entries, "read_newest_entry", lambda *_: missing_entries.NewestEntry())
    for module in (missing_checkpoints, commit):
        patch.setattr(module, "raise_if_unrecorded", lambda *_: None)


def step_over_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """A split leaves the first partition out although it is ready."""
    patch.setattr(next_split, "_caught_up_to", lambda _samples, first, *_: max(first, START + LENGTH))


def take_samples_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """The samples are not compared with those that the chain was trained on."""
    patch.setattr(regrid, "change_of", lambda *_: None)
    patch.setattr(commit_decision, "change_of", lambda *_: None)
    patch.setattr(chain_ends, "change_of", lambda *_: None)
    patch.setattr(rules, "_grid_problem", lambda *_: None)


def forget_what_lies_before(patch: pytest.MonkeyPatch) -> None:
    """A new grid is recorded without the hole before where the chain began."""
    real = regrid.Regrid
    patch.setattr(regrid, "Regrid", lambda **given: real(**{**given, "holes": []}))
    patch.setattr(rules, "_regrid", lambda *_: None)
    patch.setattr(regrid, "change_of", lambda state, grid: _unless_said(state, grid))
    patch.setattr(chain_ends, "change_of", lambda state, grid: _unless_said(state, grid))
    patch.setattr(commit_decision, "change_of", lambda state, grid: _unless_said(state, grid))
    patch.setattr(rules, "_grid_problem", lambda *_: None)


def _unless_said(state: Any, grid: Any) -> Any:
    return None if state.grid == grid or state.edge is None or state.grid is None else _change_of(state, grid)


_change_of = rules.change_of


# -- empty partitions ------------------------------------------------------------------------------------------------


def count_what_is_empty_as_newest(patch: pytest.MonkeyPatch) -> None:
    """What is too old is counted from the newest partition that is ready, be there a row in it or not."""
    patch.setattr(PartitionState, "has_samples", property(lambda self: self.presence is Readiness.READY))


def end_a_split_where_empty_ones_end(patch: pytest.MonkeyPatch) -> None:
    """An empty partition that ends where a base's checkpoint ends has the split of a stage end there."""

    def fits(self: SplitBuilder, end: Any, bounds: Any) -> bool:
        anchor = self.taken[0].end if self.taken else end
        bound = next((bound for bound in bounds if bound >= anchor), None)
        return bound is not None and end <= bound

    patch.setattr(SplitBuilder, "fits", fits)


def train_on_empty_ones_alone(patch: pytest.MonkeyPatch) -> None:
    """A split of nothing but empty partitions is trained on."""
    patch.setattr(SplitBuilder, "has_files", property(lambda self: bool(self.taken)))


# -- stages ----------------------------------------------------------------------------------------------------------


def start_from_the_base_again(patch: pytest.MonkeyPatch) -> None:
    """A stage that starts from its base once starts from it at each run."""
    real = checkpoint.parse_init_from
    patch.setattr(checkpoint, "parse_init_from", lambda *given: msgspec.structs.replace(real(*given), once=False))


def forget_the_base(patch: pytest.MonkeyPatch) -> None:
    """A stage goes on from its own checkpoints."""
    patch.setattr(checkpoint, "with_upstream", lambda head, *_: head)


def train_beyond_the_base(patch: pytest.MonkeyPatch) -> None:
    """A split goes on after what the base has trained on."""
    patch.setattr(data_checker.Head, "bounds", ())
    patch.setattr(data_checker.Head, "upstream_of", lambda self, *_: self.candidates[0] if self.candidates else None)


def stay_when_the_base_goes_back(patch: pytest.MonkeyPatch) -> None:
    """A stage goes on from what came from checkpoints that its base has undone."""
    patch.setattr(checkpoint, "rewind_after_upstream", lambda *_: "")


def trigger_no_stage(patch: pytest.MonkeyPatch) -> None:
    """What is committed starts no other stage."""
    real = trigger_dagrun.TriggerDagRunOperator.execute

    def execute(self: Any, context: Any) -> None:
        if self.task_id == "next":
            real(self, context)

    patch.setattr(trigger_dagrun.TriggerDagRunOperator, "execute", execute)


# -- branches --------------------------------------------------------------------------------------------------------


def begin_a_branch_as_the_file_is(patch: pytest.MonkeyPatch) -> None:
    """What a branch was forked with is not looked for in its ledger."""
    patch.setattr(people, "overrides_of_branch", lambda *_: {"branch": BRANCH})


def prune_what_a_branch_is_forked_from(patch: pytest.MonkeyPatch) -> None:
    """Only stages keep a checkpoint."""
    patch.setattr(prune, "references", lambda *_: set())


def begin_nothing_after_what_was_forked(patch: pytest.MonkeyPatch) -> None:
    """A stage that begins once its base is caught up does not, where that is a branch with nothing more to train."""
    real = data_checker.DataCheckerOperator._trained
    patch.setattr(
        data_checker.DataCheckerOperator, "_trained", lambda self, ti, head: real(self, ti, head) if head.id else None
    )


# -- inside a split --------------------------------------------------------------------------------------------------


def _resume(patch: pytest.MonkeyPatch, by: int) -> None:
    real = save_points.StoredSaves.newest

    def newest(self: Any) -> Any:
        saved = real(self)
        return saved and save_points.Saved({"row": saved.position["row"] + by}, saved.path, saved.state)

    patch.setattr(save_points.StoredSaves, "newest", newest)


def resume_a_row_too_early(patch: pytest.MonkeyPatch) -> None:
    """The row that was trained on last is trained on again."""
    _resume(patch, -1)


def resume_a_row_too_late(patch: pytest.MonkeyPatch) -> None:
    """A row is left out."""
    _resume(patch, 1)


def order_saves_by_the_clock(patch: pytest.MonkeyPatch) -> None:
    """The save with the latest name is the newest, as the clock said when its attempt was made."""
    real = intermediate_saves.IntermediateSaves._complete
    patch.setattr(
        intermediate_saves.IntermediateSaves, "_complete", lambda self: sorted(real(self), key=lambda each: each.name)
    )

    def forget_older(self: Any, _own: Any) -> None:
        for each in self._complete()[: -intermediate_saves.KEPT]:
            self._delete(each)

    patch.setattr(intermediate_saves.IntermediateSaves, "_forget_others", forget_older)


def mix_trainings_up(patch: pytest.MonkeyPatch) -> None:
    """What was saved in one split is gone on from in another."""
    patch.setattr(training_identity, "training_name", lambda *_: "all")


def look_at_no_sample_again(patch: pytest.MonkeyPatch) -> None:
    """Whether files were replaced after the split was made is not looked at: not at a resume, not in the end."""
    patch.setattr(file_binding, "changes", lambda _split: ())


def give_up_at_the_first_change(patch: pytest.MonkeyPatch) -> None:
    """A split of which files were replaced uses up tries, and is never made again."""
    patch.setattr(chain_operator.SplitOperator, "_restart", lambda _self, error: error)


# -- retention -------------------------------------------------------------------------------------------------------


def forget_who_follows(patch: pytest.MonkeyPatch) -> None:
    """The checkpoint that another stage is to start from is deleted."""
    patch.setattr(prune, "_for", lambda *_: set())
    patch.setattr(prune, "references", lambda *_: set())


def delete_what_is_promoted(patch: pytest.MonkeyPatch) -> None:
    """A name does not keep a checkpoint."""
    real = retention.removable

    def removable(state: Any, *given: Any) -> Any:
        return real(msgspec.structs.replace(state, promoted={}), *given)

    patch.setattr(prune, "removable", removable)
    patch.setattr(rules, "_prune", lambda *_: None)


# -- gates -----------------------------------------------------------------------------------------------------------


def pass_everything(patch: pytest.MonkeyPatch) -> None:
    """Gates refuse nothing."""
    patch.setattr(commit, "verdict_of", lambda *_: CommitCheckpoint())


def forget_a_stop(patch: pytest.MonkeyPatch) -> None:
    """The run after the one that was stopped goes on as if nothing had happened."""
    real = fold._Fold._changes
    patch.setattr(fold._Fold, "_changes", lambda self, sealed: {**real(self, sealed), "stopped": None})


def forget_what_was_skipped(patch: pytest.MonkeyPatch) -> None:
    """The split after a skip does not record it."""
    patch.setattr(data_checker, "after_skips", lambda split, *_: split)
    patch.setattr(commit, "raise_unless_next", lambda *_: None)
    refuse_no_entry(patch)


# -- repair and replay -----------------------------------------------------------------------------------------------


def repair_what_is_no_hole(patch: pytest.MonkeyPatch) -> None:
    """A partition that was trained on is taken for a hole."""
    patch.setattr(changed_samples, "open_holes", lambda *_, **__: [Hole(START, START + LENGTH, "")])
    patch.setattr(rules, "_fill", lambda *_: None)


def replay_nothing(patch: pytest.MonkeyPatch) -> None:
    """What was published again is noticed, and nothing is done about it."""
    patch.setattr(automatic_rewinds, "_replayed", lambda *_: "not today")


def replay_to_the_wrong_place(patch: pytest.MonkeyPatch) -> None:
    """A rewind goes back to the partition's own checkpoint, and not to the one before."""
    real = automatic_rewinds._decide

    def decide(ledger: Any, state: Any, found: Any, samples: Any, ti: Any) -> Any:
        decision = real(ledger, state, found, samples, ti)
        if not hasattr(decision, "to") or found[0].checkpoint_id == state.head.id:
            return decision
        return msgspec.structs.replace(decision, to=found[0].checkpoint_id)

    patch.setattr(automatic_rewinds, "_decide", decide)


#: what comes after the first partition comes while it is trained on
LATE = {**THREE, "mode": "latest", "present": (0,), "arrivals": (1, 2), "limit": 3}
EMPTY = {**THREE, "empty": (1,)}
KILLS = (F.KILL, F.REBOOT)

PLANTED = [
    PlantedBug(
        create_over_what_is_there,
        (F.PROMOTE,),
        {"fenced", "nothing fails without a cause"},
        {**THREE, "homes": 2},
    ),
    PlantedBug(take_a_short_ledger_for_whole, (F.LOSE_ENTRIES,), {"a short ledger is corrupt"}, THREE),
    PlantedBug(step_over_what_is_there, (), {"holes have a reason"}, THREE),
    PlantedBug(take_samples_as_they_are, (F.EDIT,), {"audit"}, THREE),
    PlantedBug(forget_what_lies_before, (F.EDIT,), {"audit"}, THREE),
    PlantedBug(count_what_is_empty_as_newest, (), {"progress"}, {**EMPTY, "newer_than": 1, "empty": (2,)}),
    PlantedBug(
        end_a_split_where_empty_ones_end,
        (),
        {"progress"},
        {**EMPTY, "shape": Shape.DAILY, "limit": 2, "later_limit": 1},
    ),
    PlantedBug(train_on_empty_ones_alone, (), {"something is trained on", "nothing fails without a cause"}, EMPTY),
    PlantedBug(begin_a_branch_as_the_file_is, (F.FORK,), {"splits are limited"}, {**LATE, "branch_limit": 1}),
    PlantedBug(
        prune_what_a_branch_is_forked_from,
        (F.FORK,),
        {"retention keeps what is needed", "nothing fails without a cause"},
        {**THREE, "keep": 1},
    ),
    PlantedBug(
        begin_nothing_after_what_was_forked,
        (F.FORK,),
        {"progress"},
        {**THREE, "shape": Shape.ONCE, "partitions": 1, "present": (0,)},
    ),
    PlantedBug(start_from_the_base_again, (), {"the base is the right one"}, {**THREE, "shape": Shape.ONCE}),
    PlantedBug(forget_the_base, (), {"the base is the right one"}, {**THREE, "shape": Shape.DAILY}),
    PlantedBug(train_beyond_the_base, (), {"the base is the right one"}, {**LATE, "shape": Shape.FAN}),
    PlantedBug(
        stay_when_the_base_goes_back,
        (F.REPUBLISH,),
        {"progress"},
        {**THREE, "shape": Shape.DAILY, "republished": "replay"},
    ),
    PlantedBug(trigger_no_stage, (), {"one successor"}, {**THREE, "shape": Shape.FAN}),
    PlantedBug(resume_a_row_too_early, KILLS, {"exactly once"}, {**THREE, "saves": True, "limit": 3}),
    PlantedBug(resume_a_row_too_late, KILLS, {"exactly once"}, {**THREE, "saves": True, "limit": 3}),
    PlantedBug(
        order_saves_by_the_clock, (F.KILL, F.CLOCK_BACK), {"saves go forward"}, {**THREE, "saves": True, "limit": 3}
    ),
    PlantedBug(look_at_no_sample_again, (F.REPLACE,), {"exactly once"}, THREE),
    PlantedBug(look_at_no_sample_again, (F.REPLACE, *KILLS), {"exactly once"}, {**THREE, "saves": True, "limit": 3}),
    PlantedBug(give_up_at_the_first_change, (F.REPLACE,), {"nothing fails without a cause"}, THREE),
    # a save says which content it is of: mixed up, it is passed over, and the saves go back
    PlantedBug(mix_trainings_up, (), {"exactly once", "saves go forward"}, {**THREE, "saves": True}),
    PlantedBug(
        forget_who_follows,
        (),
        {"nothing fails without a cause", "retention keeps what is needed", "the base is the right one"},
        {**THREE, "shape": Shape.FAN, "keep": 1},
    ),
    PlantedBug(delete_what_is_promoted, (F.PROMOTE,), {"retention keeps what is needed"}, {**THREE, "keep": 1}),
    PlantedBug(pass_everything, (), {"gates"}, {**THREE, "gate": "stop", "bad": (1,)}),
    # either the next run commits, or a person is told that there is nothing to decide
    PlantedBug(forget_a_stop, (F.TRIGGER,), {"gates", "ChainMoved"}, {**THREE, "gate": "stop", "bad": (1,)}),
    PlantedBug(
        forget_what_was_skipped, (), {"skips are holes", "exactly once"}, {**THREE, "gate": "skip", "bad": (1,)}
    ),
    PlantedBug(repair_what_is_no_hole, (F.REPAIR,), {"repair"}, THREE),
    PlantedBug(replay_nothing, (F.REPUBLISH,), {"replay"}, {**THREE, "republished": "replay"}),
    PlantedBug(replay_to_the_wrong_place, (F.REPUBLISH,), {"replay"}, {**THREE, "republished": "replay"}),
]


@pytest.mark.parametrize("planted", PLANTED, ids=[planted.plant.__name__ for planted in PLANTED])
def test_planted_bug_is_found(planted: PlantedBug, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.assert_found(monkeypatch)
