"""What weights learnt from, followed through chains; two checkpoints side by side; what a rewind takes with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from trainflow.checkpoints.audit.lineage import ComparedScore, Lineage, compare, lineage_of
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import ArtifactFile, Author, Checkpoint, CheckpointRef, LedgerEntry
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.fork import adopt, fork
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import cascading_rewinds, rewind
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import CheckpointNotFound, InputError
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, day, split_of

ME = Author("person")


class Chains:
    """Several chains of one store."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder / "store")
        self.scratch = folder
        self._writers: dict[ChainKey, ChainWriter] = {}

    def __getitem__(self, names: str) -> ChainWriter:
        """`stage` or `stage/branch`."""
        stage, _, branch = names.partition("/")
        key = ChainKey("flights", stage, branch or "main")
        return self._writers.setdefault(key, ChainWriter(self.store, self.scratch / names, key))

    def entries(self, chain: ChainKey) -> list[LedgerEntry]:
        return list(Ledger(self.store, chain).entries())

    def ref(self, names: str, checkpoint: Checkpoint) -> CheckpointRef:
        return CheckpointRef(self[names].chain, checkpoint.id)

    def lineage(self, names: str, checkpoint: Checkpoint) -> Lineage:
        return lineage_of(self.ref(names, checkpoint), self.entries)

    def line(self, names: str) -> list[Checkpoint]:
        ledger = Ledger(self.store, self[names].chain)
        return list(line_from_head(ledger, ledger.state()))


@pytest.fixture
def chains(tmp_path: Path) -> Chains:
    return Chains(tmp_path)


def days(found: Lineage) -> list[int]:
    return [(step.start - day(0)).days for step in found.partitions]


def test_lineage_is_every_partition_in_order_of_training(chains: Chains) -> None:
    chains["main"].commit(days=2)
    chains["main"].commit(days=3, skip=[1])
    last = chains["main"].commit(fills=True, split=split_of(3))

    found = chains.lineage("main", last)

    assert days(found) == [0, 1, 2, 4, 3]
    assert [step.filled for step in found.partitions] == [False] * 4 + [True]
    assert (found.rows, found.partitions[0].run_id, found.partitions[-1].checkpoint_id) == (50, "run-1", last.id)


def test_lineage_ends_with_weights_not_with_chain(chains: Chains) -> None:
    first = chains["main"].commit()
    second = chains["main"].commit()
    rewind(chains["main"].ledger, first.id, expected_head=second.id, by=ME, now=day(9))
    third = chains["main"].commit(days=2)
    prune(chains["main"].ledger, [KeepLatest(1)], by=ME, now=day(9))

    assert days(chains.lineage("main", second)) == [0, 1]
    assert days(chains.lineage("main", third)) == [0, 1, 2]
    assert {step.checkpoint_id for step in chains.lineage("main", third).partitions} == {first.id, third.id}


def test_lineage_of_weights_from_another_stage_includes_it(chains: Chains) -> None:
    base = chains["base"].commit_many(3)
    chains["fine"].commit(origin=chains.ref("base", base[0]))
    second = chains["fine"].commit(origin=chains.ref("base", base[1]))

    found = chains.lineage("fine", second)

    # what the first fine-tune learnt is not in the weights of the second
    assert [(step.chain.split("/")[1], (step.start - day(0)).days) for step in found.partitions] == [
        ("base", 0),
        ("base", 1),
        ("fine", 1),
    ]


def test_lineage_of_forked_branch_includes_its_origin(chains: Chains) -> None:
    made = chains["main"].commit_many(3)
    origin = chains.ref("main", made[1])
    fork(chains["main/deep"].ledger, origin, made[1].watermark, by=ME, now=day(9))
    chains["main/deep"].commit(split=split_of(2, 2), origin=origin)
    last = chains["main/deep"].commit()

    found = chains.lineage("main/deep", last)

    assert days(found) == [0, 1, 2, 3, 4]
    assert [step.chain.split("/")[2] for step in found.partitions] == ["main", "main", "deep", "deep", "deep"]


def test_lineage_of_imported_chain_names_its_origin(chains: Chains) -> None:
    adopt(chains["main"].ledger, "s3://old/1", day(5), [ArtifactFile("m", 1, "x")], by=ME, now=day(9))
    made = chains["main"].commit(split=split_of(5))

    assert (chains.lineage("main", made).began_with, days(chains.lineage("main", made))) == ("s3://old/1", [5])


def test_lineage_of_unknown_checkpoint_is_refused(chains: Chains) -> None:
    chains["main"].commit()
    gone = CheckpointRef(ChainKey("flights", "gone"), "x")
    made = chains["main"].commit(origin=gone)

    with pytest.raises(CheckpointNotFound, match="flights/gone/main has no checkpoint x"):
        chains.lineage("main", made)


def test_compare_two_branches_side_by_side(chains: Chains) -> None:
    made = [chains["main"].commit(evaluation={"auc": 0.5 + number / 10}) for number in range(4)]
    origin = chains.ref("main", made[1])
    fork(chains["main/deep"].ledger, origin, made[1].watermark, by=ME, now=day(9))
    last = chains["main/deep"].commit(split=split_of(2, 3, [3]), origin=origin, evaluation={"auc": 0.9})

    found = compare(
        chains.line("main"),
        chains.line("main/deep"),
        chains.lineage("main", made[3]),
        chains.lineage("main/deep", last),
    )

    assert [(each.watermark, each.a, each.b) for each in found.scores] == [
        (day(1), {"auc": 0.5}, None),
        (day(2), {"auc": 0.6}, None),
        (day(3), {"auc": 0.7}, None),
        (day(4), {"auc": 0.8}, None),
        (day(5), None, {"auc": 0.9}),
    ]
    assert (found.common, found.changed) == (3, [])
    assert [step.start for step in found.only_a] == [day(3)]
    assert [step.start for step in found.only_b] == [day(4)]


def test_scores_and_trainers_own_metrics_are_never_mixed(chains: Chains) -> None:
    """The first checkpoint of a chain was not evaluated: there is nothing to say of it where others were."""
    one = [replace(each, metrics={"loss": 2.0}, evaluation={}) for each in chains["main"].commit_many(2)]
    scored = [one[0], replace(one[1], evaluation={"auc": 0.4})]
    nothing = Lineage(CheckpointRef(chains["main"].chain, one[1].id), [])

    trained = compare(one, one[:1], nothing, nothing)
    found = compare(scored, one[:1], nothing, nothing)

    assert (trained.measured, [each.watermark for each in trained.scores]) == ("training", [day(1), day(2)])
    assert (found.measured, found.scores) == ("evaluation", [ComparedScore(day(2), {"auc": 0.4}, None)])


def test_partition_with_another_content_is_neither_common_nor_only_ones(chains: Chains) -> None:
    one = chains["main"].commit()
    other = chains["main/deep"].commit(split=split_of(0))
    found = chains.lineage("main/deep", other)
    changed = Lineage(found.of, [type(step)(**{**as_dict(step), "fingerprint": "x"}) for step in found.partitions])

    result = compare([one], [other], chains.lineage("main", one), changed)

    assert (result.common, result.only_a, result.only_b) == (0, [], [])
    assert [(each.a.checkpoint_id, each.b.fingerprint) for each in result.changed] == [(one.id, "x")]


def as_dict(step: object) -> dict[str, object]:
    return {name: getattr(step, name) for name in step.__struct_fields__}  # type: ignore[attr-defined]


# -- what a rewind takes with it -----------------------------------------------------------------------------------


def test_cascading_rewind_without_dependents_is_alone(chains: Chains) -> None:
    made = chains["main"].commit_many(4)

    (only,) = cascading_rewinds(chains["main"].ledger, made[1].id)

    assert (only.to_id, only.to_number, only.watermark, len(only.checkpoints)) == (made[1].id, 2, day(2), 2)
    assert (only.head_id, only.head_number) == (made[3].id, 4)
    (all_,) = cascading_rewinds(chains["main"].ledger, None)
    assert (all_.to_id, all_.to_number, all_.watermark, len(all_.checkpoints)) == (None, 0, None, 4)


def test_cascading_rewind_takes_later_stages_back_and_leaves_forks(chains: Chains) -> None:
    base = chains["base"].commit_many(4)
    fine = [chains["fine"].commit(origin=chains.ref("base", each)) for each in base[:3]]
    last = [chains["last"].commit(origin=chains.ref("fine", fine[2]))]
    other = chains["other"].commit(origin=chains.ref("base", base[0]))
    fork(chains["base/deep"].ledger, chains.ref("base", base[3]), day(4), by=ME, now=day(9))
    chains["base/deep"].commit(split=split_of(4), origin=chains.ref("base", base[3]))

    plan = cascading_rewinds(chains["base"].ledger, base[1].id)

    assert [(each.chain.stage, each.to_id, len(each.checkpoints)) for each in plan] == [
        ("last", None, 1),
        ("fine", fine[1].id, 1),
        ("base", base[1].id, 2),
    ]
    assert (last[0].sequence, other.sequence) == (1, 1)
    assert [each.chain.stage for each in cascading_rewinds(chains["fine"].ledger, fine[0].id)] == ["last", "fine"]


@pytest.mark.parametrize(
    ("latest", "first", "goes_to"), [(1, False, None), (3, False, None), (1, True, 0), (4, False, 1)]
)
def test_rewind_of_base_whose_stage_was_pruned_goes_back_to_what_is_kept(
    chains: Chains, latest: int, first: bool, goes_to: int | None
) -> None:
    """The stage would go back to its second checkpoint. One rule for it and for a chain alone."""
    base = chains["base"].commit_many(5)
    fine = [chains["fine"].commit(origin=chains.ref("base", each)) for each in base]
    ledger = chains["fine"].ledger
    prune(ledger, [KeepLatest(latest)], by=ME, now=day(9), pinned=[fine[0].id] if first else [])

    fine_back, base_back = cascading_rewinds(chains["base"].ledger, base[1].id)
    (alone,) = cascading_rewinds(ledger, fine[1].id)

    expected = None if goes_to is None else fine[goes_to]
    for each in (fine_back, alone):
        assert each.to_id == (expected.id if expected else None)
        assert len(each.checkpoints) == (5 if goes_to is None else 4 - goes_to)
        assert each.pruned_up_to == (None if goes_to == 1 else fine[1].watermark)
    assert (base_back.to_id, base_back.pruned_up_to) == (base[1].id, None)


def test_chain_of_another_pipeline_goes_back_as_well(chains: Chains, tmp_path: Path) -> None:
    made = chains["main"].commit_many(2)
    nights = ChainWriter(chains.store, tmp_path / "nights", ChainKey("nights"))
    nights.commit(origin=chains.ref("main", made[1]))

    assert [str(each.chain) for each in cascading_rewinds(chains["main"].ledger, made[0].id)] == [
        "nights/main/main",
        "flights/main/main",
    ]


def test_circle_of_stages_goes_back_round_by_round(chains: Chains) -> None:
    """a0 → b0 → a1 → b1 → a2: each from the one before."""
    a = [chains["a"].commit()]
    b = [chains["b"].commit(origin=chains.ref("a", a[0]))]
    a.append(chains["a"].commit(origin=chains.ref("b", b[0])))
    b.append(chains["b"].commit(origin=chains.ref("a", a[1])))
    a.append(chains["a"].commit(origin=chains.ref("b", b[1])))

    plan = cascading_rewinds(chains["b"].ledger, None)

    assert {each.chain.stage: each.to_number for each in plan} == {"a": 1, "b": 0}
    plan = cascading_rewinds(chains["a"].ledger, a[0].id)
    assert {each.chain.stage: each.to_number for each in plan} == {"a": 1, "b": 1}


def test_cascading_rewind_to_impossible_target_is_refused(chains: Chains) -> None:
    with pytest.raises(InputError, match="nothing to rewind"):
        cascading_rewinds(chains["main"].ledger, None)
    made = chains["main"].commit_many(3)
    prune(chains["main"].ledger, [KeepLatest(2)], by=ME, now=day(9))
    rewind(chains["main"].ledger, made[1].id, expected_head=made[2].id, by=ME, now=day(9))
    with pytest.raises(InputError, match="a rewind left it behind"):
        cascading_rewinds(chains["main"].ledger, made[2].id)
