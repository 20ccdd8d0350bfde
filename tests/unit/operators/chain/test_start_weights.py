from __future__ import annotations

from typing import Any

import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.stages.init_from import InitFrom, Pin
from trainflow.errors import InputError
from trainflow.operators.chain.start_weights import parse_init_from, parse_pin

OWN = ChainKey("model", "tuned", "main")
COMMITTED = {"pipeline": "p", "stage": "s", "branch": "b", "id": "1", "number": 7, "watermark": "x", "uri": "x"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("p", InitFrom(ChainKey("p"), once=True)),
        ("p/s/b@1", InitFrom(ChainKey("p", "s", "b"), once=True, checkpoint_id="1")),
        (COMMITTED, InitFrom(ChainKey("p", "s", "b"), once=True, checkpoint_id="1")),
        (Pin(ChainKey("p"), "1", 7), InitFrom(ChainKey("p"), once=True, checkpoint_id="1")),
        ({"stage": "base"}, InitFrom(ChainKey("model", "base"), "same_watermark")),
        ({"stage": "base", "feedback": True}, InitFrom(ChainKey("model", "base"), "same_watermark", feedback=True)),
        ({"stage": "base", "once": True}, InitFrom(ChainKey("model", "base"), "latest", once=True)),
        ({"pipeline": "p", "at": "latest"}, InitFrom(ChainKey("p"), "latest")),
        (
            {"stage": "base", "branch": "b", "at": "promoted", "alias": "best"},
            InitFrom(ChainKey("model", "base", "b"), "promoted", alias="best"),
        ),
    ],
)
def test_init_from_of_pipeline_is_parsed(written: Any, meant: InitFrom) -> None:
    assert parse_init_from(written, OWN) == meant


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"stage": "tuned"}, "names model/tuned/main itself"),
        ({"stage": "base", "when": "now"}, "unknown: when"),
        ({"at": "latest"}, "it names no stage"),
        ({"stage": "base", "at": "newest"}, "it is one of same_watermark, latest, promoted"),
        ({"stage": "base", "once": True, "at": "same_watermark"}, "at is latest or promoted"),
        ({"stage": "a/b"}, "cannot name a stage"),
        ({"stage": 3}, "init_from: "),
        ("a/b/c/d", "names no checkpoint"),
        ("", "names no checkpoint"),
        (["model"], "names no checkpoint"),
    ],
)
def test_init_from_contradiction_is_refused(written: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_init_from(written, OWN)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("p/s", Pin(ChainKey("p", "s"), None)),
        ("p/s/b@1", Pin(ChainKey("p", "s", "b"), "1")),
        (COMMITTED, Pin(ChainKey("p", "s", "b"), "1", 7)),
        ({"pipeline": "p", "stage": "s", "id": None, "number": 0}, Pin(ChainKey("p", "s"), None)),
    ],
)
def test_init_from_of_conf_is_parsed(written: Any, meant: Pin) -> None:
    assert parse_pin(written) == meant
