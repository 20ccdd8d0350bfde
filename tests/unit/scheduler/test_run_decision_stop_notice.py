from __future__ import annotations

from types import SimpleNamespace

from trainflow.messages.notice import Cause, Event
from trainflow.metadata.queries.status_queries import FirstFailure
from trainflow.scheduler.run_decision import stop_notice
from trainflow.serialization.document import ChainDocument

CHAIN = ChainDocument("flights", "base", "main", "checkpoints")


def run(number: int, **more: object) -> SimpleNamespace:
    facts = {"dag_id": "flights.base", "run_id": f"run-{number}", "number": number, "released_at": None}
    return SimpleNamespace(**facts | more)


def test_task_that_failed_for_good() -> None:
    failure = FirstFailure("train", "ValueError:\n  no such column", None)

    notice = stop_notice(CHAIN, run(7), failure, last_success=6, note=None)

    assert (notice.event, notice.cause, notice.key) == (Event.STOPPED, Cause.TASK, "flights.base:6:train")
    assert (notice.pipeline, notice.stage, notice.branch) == ("flights", "base", "main")
    assert (notice.dag_id, notice.run_id, notice.facts) == ("flights.base", "run-7", {"task_id": "train"})
    assert notice.sentence == ("flights.base: the chain stopped in run 7: task 'train': ValueError: no such column")


def test_stop_notice_repeated_is_same_until_success() -> None:
    failure = FirstFailure("train", "no", None)
    keys = [stop_notice(CHAIN, run(number), failure, last_success=3, note=None).key for number in (4, 5, 6)]

    assert len(set(keys)) == 1
    assert stop_notice(CHAIN, run(9), failure, last_success=8, note=None).key != keys[0]
    assert stop_notice(CHAIN, run(5), FirstFailure("samples", "no", None), last_success=3, note=None).key != keys[0]


def test_stop_notice_prefers_what_task_knows() -> None:
    told = {"cause": "gate", "key": "gate:12", "sentence": "auc >= 0.6: it is 0.5", "facts": {"start": "2013-01-01"}}

    notice = stop_notice(CHAIN, run(7), FirstFailure("commit", "GateFailed: …", told), last_success=6, note=None)

    assert (notice.cause, notice.key) == (Cause.GATE, "gate:12")
    assert notice.sentence == "flights.base: the chain stopped in run 7: auc >= 0.6: it is 0.5"
    assert notice.facts == {"task_id": "commit", "start": "2013-01-01"}


def test_run_that_no_task_failed_in() -> None:
    notice = stop_notice(CHAIN, run(7), None, last_success=6, note="dagrun_timeout: the run took longer than 5 s")

    assert notice.sentence.endswith("dagrun_timeout: the run took longer than 5 s")
    assert notice.cause is Cause.TASK


def test_task_after_commit_stops_no_chain() -> None:
    failure = FirstFailure("export", "no space left", None)
    first, second = (
        stop_notice(CHAIN, run(number, released_at="then"), failure, last_success=3, note=None) for number in (7, 8)
    )

    assert (first.event, first.cause) == (Event.AFTER_COMMIT_FAILED, None)
    assert first.sentence == (
        "flights.base: after the commit of run 7: task 'export' failed: no space left; the chain goes on"
    )
    assert first.key != second.key
