from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.unit.insight.dag_snapshots import NOW, at, run, snapshot, task, training
from trainflow.insight.chains.chain_status import ChainStatus
from trainflow.insight.snapshot import DagSnapshot, EngineSnapshot, LastFailure
from trainflow.insight.why import explain
from trainflow.insight.why_task import AnswerKind
from trainflow.serialization.document import ChainDocument

MARK = datetime(2013, 2, 1, tzinfo=UTC)


SKIPPED = run(task("samples", "skipped", note="caught up at 2013-02-01T00:00Z: nothing after it"), state="success")
ENDED = run(task("samples", "success"), task("train", "success"), state="success")
REFUSED = run(
    task("commit", "failed", problem="chain days/main/main is stopped: gates refused x"),
    state="failed",
)

CASES: list[tuple[str, DagSnapshot, ChainStatus | None, AnswerKind, str]] = [
    (
        "a stage whose base has not come further, whatever samples there are",
        snapshot(last=ENDED),
        ChainStatus(head_number=3, watermark=MARK, lag=7, waits="waits for stage base"),
        AnswerKind.CAUGHT_UP,
        "caught up at 2013-02-01T00:00Z: waits for stage base",
    ),
    (
        "a stage of which no run is known, and its base has nothing for it",
        snapshot(),
        ChainStatus(waits="waits for stage base"),
        AnswerKind.NEVER_STARTED,
        "no run of it is in this home: it waits for stage base",
    ),
    (
        "depends_on_past and the run before failed",
        snapshot(running=[run(task("a", None, waits_for_run=4, past_state="failed"))]),
        None,
        AnswerKind.WAITING,
        "run 5: task 'a' waits for run 4 (depends_on_past), in which it failed: "
        "'trainflow runs clear days 4' lets that run again",
    ),
    (
        "depends_on_past and the run before has not come so far",
        snapshot(running=[run(task("a", None, waits_for_run=4, past_state=None))]),
        None,
        AnswerKind.WAITING,
        "run 5: task 'a' waits for run 4 (depends_on_past), in which it has not run yet",
    ),
    (
        "depends_on_past and the run before is at it, while another task of this one is at work",
        snapshot(running=[run(task("b", "queued"), task("a", None, waits_for_run=4, past_state="running"))]),
        None,
        AnswerKind.STARTING,
        "run 5: task 'b' is about to start",
    ),
    ("training", snapshot(running=[training()]), None, AnswerKind.TRAINING, "run 5 is training for 90 s"),
    (
        "nothing watches what it waits for",
        snapshot(engine=EngineSnapshot(True, 42, "here", NOW, False), running=[run(task("samples", "deferred"))]),
        None,
        AnswerKind.NO_TRIGGERER,
        "run 5: task 'samples' waits for its trigger, and no triggerer is alive to watch it: start one with "
        "'trainflow triggerer'",
    ),
    (
        "training, with progress",
        snapshot(running=[training({"done": 250.0, "total": 1000.0, "unit": "rows"})]),
        None,
        AnswerKind.TRAINING,
        "run 5 is training for 90 s: 25% (250 of 1,000 rows)",
    ),
    (
        "training, after an attempt that was lost",
        snapshot(running=[training()], last_failure=LastFailure("run-5", "train", NOW, "its worker was not heard.")),
        None,
        AnswerKind.TRAINING,
        "run 5 is training for 90 s, after an attempt that ended early: its worker was not heard",
    ),
    (
        "training, without a total",
        snapshot(running=[training({"done": 2500.0, "total": None, "unit": "rows"})]),
        None,
        AnswerKind.TRAINING,
        "run 5 is training for 90 s: 2,500 rows",
    ),
    (
        "at another task",
        snapshot(running=[run(task("evaluate", "running", started_at=at(-7200)))]),
        None,
        AnswerKind.WORKING,
        "run 5 is at task 'evaluate' for 2 h",
    ),
    (
        "paused, but what runs runs",
        snapshot(paused=True, running=[training()]),
        None,
        AnswerKind.TRAINING,
        "run 5 is training for 90 s",
    ),
    (
        "the engine died while a run was under way",
        snapshot(engine=EngineSnapshot(), running=[training()]),
        None,
        AnswerKind.NO_ENGINE,
        "no engine is alive: run 5 has not ended, 'trainflow start pipelines/days.yaml' goes on with it",
    ),
    (
        "the engine is gone, a run is queued",
        snapshot(engine=EngineSnapshot(), queued=run(state="queued", number=6)),
        None,
        AnswerKind.NO_ENGINE,
        "no engine is alive: run 6 has not ended, 'trainflow start pipelines/days.yaml' goes on with it",
    ),
    (
        "the engine of a branch is gone",
        snapshot(engine=EngineSnapshot(), chain=ChainDocument("days", "main", "hot", "store"), running=[training()]),
        None,
        AnswerKind.NO_ENGINE,
        "no engine is alive: run 5 has not ended, 'trainflow start pipelines/days.yaml --branch hot' goes on with it",
    ),
    (
        "a stage of a branch is stopped",
        snapshot(chain=ChainDocument("days", "ewr", "hot", "store"), last=ENDED),
        ChainStatus(stopped=["auc 0.1"]),
        AnswerKind.GATE,
        "a gate stopped the chain: auc 0.1; 'trainflow resume pipelines/days.yaml --stage ewr --branch hot' trains the "
        "split again, --accept commits it all the same, --skip leaves it out, --rewind N goes back N checkpoints",
    ),
    (
        "the file is broken",
        snapshot(import_problem="days.yaml:3:1: no such key\n  'trian'"),
        None,
        AnswerKind.BROKEN_FILE,
        "the pipeline file cannot be read, so nothing is started: days.yaml:3:1: no such key 'trian'",
    ),
    (
        "the file is gone",
        snapshot(missing_since=NOW, last=ENDED),
        None,
        AnswerKind.MISSING_FILE,
        "pipelines/days.yaml does not define it any more (since 2026-01-02T03:04:05Z): put it back "
        "and it goes on; its chain is as it was",
    ),
    ("drained", snapshot(drained="DAG 'days' is drained"), None, AnswerKind.DRAINED, "DAG 'days' is drained"),
    (
        "paused",
        snapshot(paused=True, running=[run(task("train", "scheduled"))]),
        None,
        AnswerKind.PAUSED,
        "it is paused: 'trainflow dags unpause days' lets it go on",
    ),
    (
        "waits for a partition",
        snapshot(
            running=[run(task("samples", "deferred", note="waits: the partition 2013-02-01T00:00Z has no _SUCCESS"))]
        ),
        None,
        AnswerKind.WAITING,
        "run 5 waits: the partition 2013-02-01T00:00Z has no _SUCCESS",
    ),
    (
        "caught up, and waits for what comes",
        snapshot(running=[run(task("samples", "deferred", note="caught up, waits: nothing after 2013-02-01"))]),
        None,
        AnswerKind.CAUGHT_UP,
        "run 5: caught up, waits: nothing after 2013-02-01",
    ),
    (
        "waits since",
        snapshot(running=[run(task("samples", "deferred", note="waits: for a marker", started_at=at(-10800)))]),
        None,
        AnswerKind.WAITING,
        "run 5 waits: for a marker, since 2026-01-02T00:04:05Z (3 h)",
    ),
    (
        "another wait",
        snapshot(running=[run(task("wait", "deferred"))]),
        None,
        AnswerKind.WAITING,
        "run 5: task 'wait' waits for its trigger",
    ),
    (
        "is tried again",
        snapshot(
            running=[run(task("train", "up_for_retry", retry_at=at(12), failures=1, max_tries=2, problem="boom: x."))]
        ),
        None,
        AnswerKind.RETRYING,
        "run 5: task 'train' is tried again in 12 s (try 2 of 3) after: boom: x",
    ),
    (
        "is due",
        snapshot(running=[run(task("train", "up_for_retry", retry_at=at(-1), failures=1, max_tries=1))]),
        None,
        AnswerKind.RETRYING,
        "run 5: task 'train' is tried again at once (try 2 of 2) after: it did not say why",
    ),
    (
        "looks again",
        snapshot(running=[run(task("samples", "up_for_reschedule", retry_at=at(300), note="waits: for a marker"))]),
        None,
        AnswerKind.WAITING,
        "run 5 waits: for a marker; it looks again in 5 min",
    ),
    (
        "no slot",
        snapshot(running=[run(task("train", "scheduled", refused="pool 'gpu' has 0 free slots, 1 is needed"))]),
        None,
        AnswerKind.NO_SLOT,
        "run 5: task 'train' has to wait: pool 'gpu' has 0 free slots, 1 is needed",
    ),
    (
        "about to start",
        snapshot(running=[run(task("train", "queued", executor="local", queued_at=at(-9)))]),
        None,
        AnswerKind.STARTING,
        "run 5: task 'train' is about to start",
    ),
    (
        "no worker has begun it",
        snapshot(running=[run(task("train", "queued", executor="fleet", queued_at=at(-40), listened_queue="default"))]),
        None,
        AnswerKind.STARTING,
        "run 5: task 'train' was handed to executor 'fleet' at 2026-01-02 03:03:25 UTC, no worker has begun it for "
        "40 s; is a worker listening on queue 'default'?",
    ),
    (
        "it was handed to a worker just now",
        snapshot(running=[run(task("train", "queued", executor="fleet", queued_at=at(-2), listened_queue="default"))]),
        None,
        AnswerKind.STARTING,
        "run 5: task 'train' was handed to executor 'fleet' at 2026-01-02 03:04:03 UTC, no worker has begun it for 2 s",
    ),
    (
        "between two tasks",
        snapshot(running=[run(task("samples", "success"), task("train", None))]),
        None,
        AnswerKind.STARTING,
        "run 5 is between two tasks: the next one is about to be scheduled",
    ),
    (
        "queued behind another run",
        snapshot(running=[training()], queued=run(state="queued", number=6), max_active_runs=1),
        None,
        AnswerKind.TRAINING,
        "run 5 is training for 90 s; run 6 is queued behind it (max_active_runs 1)",
    ),
    (
        "starts later",
        snapshot(queued=run(state="queued", number=6, run_after=at(3600))),
        None,
        AnswerKind.QUEUED,
        "run 6 starts in 60 min, at 2026-01-02T04:04:05Z",
    ),
    (
        "starts now",
        snapshot(queued=run(state="queued", number=6)),
        None,
        AnswerKind.STARTING,
        "run 6 is about to start",
    ),
    (
        "the gate",
        snapshot(last=REFUSED),
        ChainStatus(head_number=4, watermark=MARK, lag=3, stopped=["auc >= 0.6: it is 0.4"]),
        AnswerKind.GATE,
        "a gate stopped the chain: auc >= 0.6: it is 0.4; 'trainflow resume pipelines/days.yaml' trains the split "
        "again, --accept commits it all the same, --skip leaves it out, --rewind N goes back N checkpoints",
    ),
    (
        "the gate, and the database was lost",
        snapshot(engine=EngineSnapshot()),
        ChainStatus(head_number=4, watermark=MARK, stopped=["loss is finite: it is nan"]),
        AnswerKind.GATE,
        "a gate stopped the chain: loss is finite: it is nan; 'trainflow resume pipelines/days.yaml' trains the split "
        "again, --accept commits it all the same, --skip leaves it out, --rewind N goes back N checkpoints",
    ),
    (
        "other samples than it was trained on",
        snapshot(last=run(task("checkpoint", "failed", problem="FailException: …"), state="failed")),
        ChainStatus(head_number=4, watermark=MARK, samples_changed="a partition was 1h long and is 2h"),
        AnswerKind.SAMPLES_CHANGED,
        "nothing is trained: a partition was 1h long and is 2h",
    ),
    (
        "a task failed",
        snapshot(last=run(task("train", "failed", problem="ValueError: nan"), state="failed")),
        None,
        AnswerKind.FAILED,
        "run 5 failed: task 'train': ValueError: nan (log: trainflow tasks logs days run-5 train); when "
        "that is put right, 'trainflow start pipelines/days.yaml' goes on at the head",
    ),
    (
        "a run failed without a failed task",
        snapshot(last=run(state="failed", note="dagrun_timeout passed")),
        None,
        AnswerKind.FAILED,
        "run 5 failed: dagrun_timeout passed; 'trainflow start pipelines/days.yaml' goes on at the head",
    ),
    (
        "caught up",
        snapshot(engine=EngineSnapshot(), last=SKIPPED),
        ChainStatus(head_number=4, watermark=MARK, lag=0),
        AnswerKind.CAUGHT_UP,
        "caught up at 2013-02-01T00:00Z: nothing after it",
    ),
    (
        "was caught up, and more has come",
        snapshot(last=SKIPPED),
        ChainStatus(head_number=4, watermark=MARK, lag=3),
        AnswerKind.ENDED,
        "no run is under way, and 3 partitions are ready after the head: 'trainflow start pipelines/days.yaml' trains",
    ),
    (
        "one partition, at least",
        snapshot(last=SKIPPED),
        ChainStatus(lag=1, lag_is_more=True),
        AnswerKind.ENDED,
        "no run is under way, and at least 1 partition is ready after the head: "
        "'trainflow start pipelines/days.yaml' trains",
    ),
    (
        "the last run did not say so, the ledger does",
        snapshot(last=ENDED),
        ChainStatus(head_number=4, watermark=MARK, lag=0),
        AnswerKind.CAUGHT_UP,
        "caught up at 2013-02-01T00:00Z: nothing after it is ready, and no run is under way",
    ),
    (
        "what else is to be known of the samples",
        snapshot(last=ENDED),
        ChainStatus(
            head_number=4,
            watermark=MARK,
            lag=0,
            lag_seconds=40 * 3600.0,
            never_catches_up=True,
            holes_arrived=2,
            republished=[MARK, MARK],
        ),
        AnswerKind.CAUGHT_UP,
        "caught up at 2013-02-01T00:00Z: nothing after it is ready, and no run is under way; at this rate it never "
        "catches up: it is 40 h behind; partition 2013-02-01T00:00Z and 1 more were published again after being "
        "trained on; 2 partitions of its holes have arrived: 'trainflow repair pipelines/days.yaml' trains "
        "what arrived",
    ),
    (
        "the chain cannot be read",
        snapshot(last=ENDED),
        ChainStatus(problem="ledger entry 3 is torn"),
        AnswerKind.ENDED,
        "no run is under way, and chain or samples cannot be read: ledger entry 3 is torn",
    ),
    (
        "ended and triggered nothing",
        snapshot(last=ENDED),
        None,
        AnswerKind.ENDED,
        "run 5 ended as success and no other was triggered: 'trainflow start pipelines/days.yaml' begins one",
    ),
    (
        "never started",
        snapshot(engine=EngineSnapshot(), known=False),
        ChainStatus(lag=9),
        AnswerKind.NEVER_STARTED,
        "it was never started, and its file has not been read yet: 'trainflow plan pipelines/days.yaml' or "
        "'trainflow start pipelines/days.yaml' says whether it is valid",
    ),
    (
        "the database was lost, the ledger was not",
        snapshot(),
        ChainStatus(head_number=4, watermark=MARK, lag=0),
        AnswerKind.NEVER_STARTED,
        "no run of it is in this home, its chain stands at checkpoint 4 (2013-02-01T00:00Z): "
        "'trainflow start pipelines/days.yaml' begins",
    ),
]


@pytest.mark.parametrize(("now", "status", "kind", "sentence"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_explain_returns_one_sentence(
    now: DagSnapshot, status: ChainStatus | None, kind: AnswerKind, sentence: str
) -> None:
    answer = explain(now, status, NOW)
    assert (answer.kind, answer.sentence) == (kind, f"days: {sentence}")


def test_explain_covers_every_kind() -> None:
    assert {case[3] for case in CASES} == set(AnswerKind)


def test_long_problem_stays_one_short_line() -> None:
    answer = explain(snapshot(import_problem="line\n" * 1000), None, NOW)
    assert "\n" not in answer.sentence
    assert len(answer.sentence) < 700
