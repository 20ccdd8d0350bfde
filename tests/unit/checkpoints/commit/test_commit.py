from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import STEPS, Commit, commit
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.errors import ArtifactCorrupt, ChainMoved, ChainStopped, CheckpointError, InputError
from trainflow.testing.chains import ChainWriter, attempt_id, day, split_of

NAMES = [name for name, _ in STEPS]


def fresh(writer: ChainWriter) -> Ledger:
    return Ledger(writer.store, writer.chain)


def test_checkpoint_says_all_there_is_to_say(writer: ChainWriter) -> None:
    first = writer.commit(days=2)
    second = writer.commit(days=3, skip=[1], metrics={"auc": 0.7}, evaluation={"auc": 0.6}, params={"depth": 3})

    assert (first.sequence, first.parent_id, first.watermark) == (1, None, day(2))
    assert (second.sequence, second.parent_id, second.watermark) == (2, first.id, day(5))
    assert (second.metrics, second.evaluation, second.params) == ({"auc": 0.7}, {"auc": 0.6}, {"depth": 3})
    assert (second.by.run_id, second.at, second.id) == ("run-2", day(2), attempt_id(2))
    assert fresh(writer).state().head == second


def test_commit_puts_no_secret_into_entry(writer: ChainWriter) -> None:
    """Entries are for ever, and every reader of the store reads them."""
    params = {"depth": 3, "hf_token": "geheim", "source": {"password": "geheim"}, "db": "postgresql://me:geheim@db/x"}
    committed = writer.commit(params=params)
    assert committed.params == {
        "depth": 3,
        "hf_token": "***",
        "source": {"password": "***"},
        "db": "postgresql://me:***@db/x",
    }


def test_committing_again_returns_same_checkpoint(writer: ChainWriter) -> None:
    parent = writer.commit()
    request = writer.request(parent=parent)
    made = commit(writer.store, request, day(5))

    assert commit(writer.store, request, day(6)) == made
    retried = writer.request(parent=parent, run_id=request.by.run_id)
    assert commit(writer.store, retried, day(7)) == made
    writer.commit()
    assert commit(writer.store, request, day(8)) == made
    assert fresh(writer).state().sequence == 3


def test_commit_of_child_of_own_checkpoint_by_same_run_is_allowed(writer: ChainWriter) -> None:
    first = writer.commit(run_id="one")

    second = writer.commit(run_id="one")

    assert second.parent_id == first.id


@pytest.mark.parametrize("parent", ["none", "older"])
def test_commit_of_other_than_child_of_head_is_refused(writer: ChainWriter, parent: str) -> None:
    made = writer.commit_many(2)
    request = writer.request(parent=None if parent == "none" else made[0])

    with pytest.raises(ChainMoved, match="Nothing was changed") as caught:
        commit(writer.store, request, day(9))

    assert caught.value.expected_sequence == (0 if parent == "none" else 1)
    assert caught.value.head_sequence == 2
    assert made[1].id in str(caught.value)
    assert "run-2" in str(caught.value)
    assert fresh(writer).state().head == made[1]


def test_commit_trained_before_rewind_is_out_of_date(
    writer: ChainWriter,
) -> None:
    parent = writer.commit()
    late = writer.request(parent=parent, generation=0)
    faster = writer.commit(generation=0)
    rewind(writer.ledger, parent.id, expected_head=faster.id, by=Author("person"), now=day(3))

    with pytest.raises(ChainMoved, match="was rewound since this run began"):
        commit(writer.store, late, day(9))

    assert fresh(writer).checkpoint() == parent
    assert writer.commit(generation=1).parent_id == parent.id


def test_split_that_does_not_start_at_watermark_is_refused(writer: ChainWriter) -> None:
    parent = writer.commit()
    request = msgspec.structs.replace(writer.request(parent=parent), split=split_of(3))

    with pytest.raises(CheckpointError, match="has trained up to 2013-01-02"):
        commit(writer.store, request, day(9))


def test_split_that_does_not_tile_is_callers_mistake(writer: ChainWriter) -> None:
    request = msgspec.structs.replace(writer.request(), split=msgspec.structs.replace(split_of(0, 2), end=day(5)))

    with pytest.raises(InputError, match="says it ends at"):
        commit(writer.store, request, day(9))


def test_artifacts_of_another_chain_are_refused(writer: ChainWriter) -> None:
    request = msgspec.structs.replace(writer.request(), chain=ChainKey("other"))

    with pytest.raises(InputError, match="artifacts are in flights/main/main"):
        commit(writer.store, request, day(9))


@pytest.mark.parametrize(
    ("gate", "metrics", "evaluation", "passes"),
    [
        ("auc >= 0.6", {"auc": 0.7}, None, True),
        ("auc >= 0.6", {"auc": 0.5}, None, False),
        # the score on unseen samples counts, not what the trainer says
        ("auc >= 0.6", {"auc": 0.9}, {"auc": 0.5}, False),
        # 0.55 was the parent's score; that its trainer claimed 0.99 does not matter
        ("auc >= previous", {"auc": 0.1}, {"auc": 0.56}, True),
        ("auc >= previous", {"auc": 0.1}, {"auc": 0.54}, False),
        ("loss <= previous", {"loss": 2.0}, None, False),
        ("loss is finite", {"loss": math.nan}, None, False),
        ("acu >= 0.6", {"auc": 0.7}, {}, False),
    ],
)
def test_commit_gates_decide_action(
    writer: ChainWriter, gate: str, metrics: dict[str, float], evaluation: dict[str, float] | None, passes: bool
) -> None:
    writer.commit()
    parent = writer.commit(metrics={"auc": 0.99, "loss": 1.0}, evaluation={"auc": 0.55})
    request = writer.request(parent=parent, metrics=metrics, evaluation=evaluation, gates=(Gate(gate),))

    if passes:
        assert commit(writer.store, request, day(9)).parent_id == parent.id
    else:
        with pytest.raises(ChainStopped, match="the head is unchanged") as caught:
            commit(writer.store, request, day(9))
        assert len(caught.value.reasons) == 1
        assert fresh(writer).state().head == parent


def test_commit_of_first_split_needs_no_score(writer: ChainWriter) -> None:
    gates = (Gate("auc >= 0.6"), Gate("loss is finite"))

    assert writer.commit(gates=gates, metrics={"loss": 1.0}, evaluated=True).sequence == 1
    with pytest.raises(ChainStopped, match="there is no metric 'auc'"):
        writer.commit(gates=gates, metrics={"loss": 1.0}, evaluated=True)


@pytest.mark.parametrize("action", ["stop", "skip", "rewind 1"])
def test_commit_with_gate_on_metric_that_nothing_reports_stops(writer: ChainWriter, action: str) -> None:
    """Also the first one, and whatever the gate would do: a typo must not pass, and must not skip every split."""
    with pytest.raises(ChainStopped, match="did you mean 'auc'"):
        writer.commit(gates=(Gate("acu >= 0.6", action),), metrics={"auc": 0.9})
    assert writer.ledger.state().head is None


def test_commit_of_first_checkpoint_checks_its_own_metrics(writer: ChainWriter) -> None:
    with pytest.raises(ChainStopped, match="it is nan"):
        writer.commit(gates=(Gate("loss is finite"),), metrics={"loss": math.nan})


def test_metric_that_json_cannot_hold_is_kept_by_name(writer: ChainWriter) -> None:
    made = writer.commit(metrics={"loss": math.nan, "auc": 0.5}, evaluation={"gain": -math.inf})

    found = fresh(writer).checkpoint()

    assert found == made
    assert (found.metrics, found.evaluation) == ({"auc": 0.5}, {})
    assert found.not_finite == {"loss": "nan", "gain": "-inf"}


@pytest.mark.parametrize("damage", ["change", "delete"])
def test_artifacts_that_changed_since_training_are_not_committed(writer: ChainWriter, damage: str) -> None:
    request = writer.request()
    file = writer.store.local_path(f"{request.artifacts.path}/model.bin")
    assert file is not None
    file.write_bytes(b"x" * file.stat().st_size) if damage == "change" else file.unlink()

    with pytest.raises(ArtifactCorrupt, match="train this split again"):
        commit(writer.store, request, day(9))

    assert fresh(writer).state().head is None


def test_commit_of_rewound_checkpoint_is_not_repeated(writer: ChainWriter) -> None:
    first = writer.commit()
    request = writer.request(parent=first)
    second = commit(writer.store, request, day(3))
    rewind(writer.ledger, first.id, expected_head=second.id, by=Author(), now=day(4))

    with pytest.raises(CheckpointError, match="and then the chain was rewound"):
        commit(writer.store, request, day(5))

    again = writer.commit(run_id=request.by.run_id)
    assert (again.parent_id, again.split) == (first.id, second.split)


def test_rewind_leaves_chain_alone_that_has_moved_on(writer: ChainWriter) -> None:
    made = writer.commit_many(3)

    with pytest.raises(ChainMoved, match="nothing was rewound"):
        rewind(writer.ledger, made[0].id, expected_head=made[1].id, by=Author(), now=day(4))
    with pytest.raises(CheckpointError, match="not a kept checkpoint"):
        rewind(writer.ledger, "missing", expected_head=made[2].id, by=Author(), now=day(4))

    assert fresh(writer).state().head == made[2]
    rewind(writer.ledger, None, expected_head=made[2].id, by=Author(), now=day(4), reason="new features")
    assert writer.commit().watermark == day(1)


def test_stage_remembers_where_it_started(writer: ChainWriter, tmp_path: Path) -> None:
    source = writer.commit_many(3)[-1]
    stage = ChainWriter(writer.store, tmp_path, ChainKey("flights", "fine"))
    stage.runs = 100
    origin = CheckpointRef(writer.chain, source.id)

    request = msgspec.structs.replace(stage.request(origin=origin), split=split_of(3))
    made = commit(writer.store, request, day(9))

    assert made.origin == origin
    assert fresh(stage).state().watermark == day(4)


@pytest.mark.parametrize("count", range(len(STEPS) + 1))
def test_stopping_after_any_step_and_committing_again_commits_once(writer: ChainWriter, count: int) -> None:
    parent = writer.commit()
    request = writer.request(parent=parent)
    work = Commit(fresh(writer), request, day(5))
    for _, step in STEPS[:count]:
        step(work)

    expected = parent if work.done is None else work.done
    assert fresh(writer).state().head == expected
    made = commit(writer.store, request, day(6))

    assert made.parent_id == parent.id
    assert fresh(writer).state().sequence == 2
    assert (made == work.done) is (count >= NAMES.index("append") + 1)


def test_commit_to_local_store_imports_nothing_heavy() -> None:
    code = (
        "import sys; import trainflow.checkpoints.commit.commit, trainflow.checkpoints.commit.commit_decision\n"
        "import trainflow.checkpoints.ledger_changes.prune\n"
        "from trainflow.storage.urls import open_store; open_store('/tmp/x')\n"
        "print([name for name in ('fsspec', 'asyncio', 'pyarrow', 'numpy', 'pydantic') if name in sys.modules])"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
