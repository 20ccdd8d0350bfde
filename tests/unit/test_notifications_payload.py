from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec

from trainflow.messages.notice import Cause, Event, Notice
from trainflow.notifications import notice_id, payload

NOTICE = Notice(
    event=Event.STOPPED,
    cause=Cause.GATE,
    key="stop 7",
    sentence="the chain stopped: auc >= 0.6: it is 0.5",
    pipeline="flights",
    dag_id="flights",
    run_id="manual__1",
    facts={"failures": ["auc >= 0.6: it is 0.5"], "metrics": {"auc": 0.5}},
)
AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_message_holds_all_fields() -> None:
    message = payload(NOTICE, at=AT, project="here")

    assert message == {
        "format": 1,
        "id": notice_id(NOTICE, "here"),
        "event": "stopped",
        "cause": "gate",
        "at": "2026-01-02T03:04:05Z",
        "project": "here",
        "pipeline": "flights",
        "stage": "main",
        "branch": "main",
        "dag_id": "flights",
        "run_id": "manual__1",
        "sentence": "the chain stopped: auc >= 0.6: it is 0.5",
        "page": None,
        "facts": {"failures": ["auc >= 0.6: it is 0.5"], "metrics": {"auc": 0.5}},
    }


def test_times_are_utc() -> None:
    east = AT.astimezone(timezone(timedelta(hours=5)))

    assert payload(NOTICE, at=east, project="here")["at"] == "2026-01-02T03:04:05Z"


def test_message_id_is_that_of_its_fact() -> None:
    def changed(**what: object) -> str:
        return notice_id(msgspec.structs.replace(NOTICE, **what), "here")

    same = {changed(), changed(run_id="manual__2"), changed(sentence="in other words"), changed(facts={})}
    others = {changed(key="stop 8"), changed(branch="b"), changed(event=Event.RESUMED), notice_id(NOTICE, "there")}

    assert len(same) == 1
    assert len(others | same) == 5


def test_secrets_that_slipped_in_are_cut_out() -> None:
    leaky = msgspec.structs.replace(
        NOTICE, sentence="cannot read s3://user:hunter2@host/x", facts={"password": "hunter2", "url": "a?token=hunter2"}
    )

    assert "hunter2" not in msgspec.json.encode(payload(leaky, at=AT, project="here")).decode()
