"""What one build leaves to the next is read by it, or refused with a sentence that says what happens, or what to do.

`recorded/documents_N.json` is what builds have written, the newest last. A field that is new and has a default changes
nothing for who reads an older document. Where a field is renamed or left out, or says something else, a test fails:
have `python -m tests.tools.record_documents` write one more file, and say below what becomes of the older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.actions.execute_workload import read_workload
from trainflow.authoring.trigger import describe_trigger, make_trigger
from trainflow.checkpoints.ledger.entries import Artifacts
from trainflow.checkpoints.ledger.entry_files import decode_entry, encode_entry
from trainflow.checkpoints.ledger.missing_entries import NewestEntry
from trainflow.checkpoints.saves import intermediate_saves
from trainflow.errors import TrainflowError
from trainflow.messages.execution_api import Outcome
from trainflow.metadata.queries.service_list_queries import ExecutorState, ServiceDetails
from trainflow.operators.chain.head import HeadOfOtherVersion, head_from_xcom, head_to_xcom
from trainflow.samples.splits.split_xcom import split_from_xcom
from trainflow.serialization.document import decode, encode

BUILDS = sorted((Path(__file__).parent / "recorded").glob("documents_*.json"))


def _trigger(document: Any) -> Any:
    path, kwargs = describe_trigger(make_trigger(document["trigger_class"], msgspec.json.decode(document["kwargs"])))
    return {"trigger_class": path, "kwargs": msgspec.json.encode(kwargs).decode()}


def _again(type_: Any) -> Callable[[str], str]:
    return lambda text: msgspec.json.encode(msgspec.json.decode(text, type=type_)).decode()


def _head(text: str) -> str:
    return msgspec.json.encode(head_to_xcom(head_from_xcom(msgspec.json.decode(text), "train"))).decode()


def _split(text: str) -> str:
    value = msgspec.json.decode(text)
    split = msgspec.to_builtins(split_from_xcom(value))
    return msgspec.json.encode({**value, "split": split}).decode()


def _trained(text: str) -> str:
    value = msgspec.json.decode(text)
    artifacts = msgspec.to_builtins(msgspec.convert(value["artifacts"], Artifacts))
    return msgspec.json.encode({**value, "artifacts": artifacts}).decode()


def _save(text: str) -> str:
    manifest = msgspec.json.decode(text, type=intermediate_saves._Manifest)
    return intermediate_saves._encode(manifest.save).decode()


def _service(row: dict[str, str]) -> dict[str, str]:
    return {
        "executors": _again(list[ExecutorState])(row["executors"]),
        "details": _again(ServiceDetails)(row["details"]),
    }


#: kind of document → what reads it, and writes it again
READERS: dict[str, Callable[[Any], Any]] = {
    "trigger": _trigger,
    "dag": lambda text: encode(decode(text)).decode(),
    "xcoms.checkpoint": _head,
    "xcoms.samples": _split,
    "xcoms.train": _trained,
    "services": _service,
    "saves": _save,
    "ledger": lambda text: encode_entry(decode_entry(text.encode(), location="1.json")).decode(),
    "newest": _again(NewestEntry),
    "workload": lambda text: msgspec.json.encode(read_workload(text)).decode(),
    "outcome": _again(Outcome),
}
#: build, kind of document → what is said of one that is not read
REFUSED = {
    # the task starts over
    (1, "trigger"): "cannot be made from .*'give_up_at'",
    # the task that made it runs again
    (1, "xcoms.checkpoint"): "the head was handed over by another version of trainflow, and cannot be read",
}


def _recorded(path: Path) -> dict[str, list[Any]]:
    """Kind of document → those of it."""
    whole = msgspec.json.decode(path.read_bytes())
    whole |= {f"xcoms.{task}": value for task, value in whole.pop("xcoms").items()}
    return {kind: value if isinstance(value, list) else [value] for kind, value in whole.items()}


CASES = [
    pytest.param(number, kind, documents, id=f"{number}-{kind}")
    for number, path in enumerate(BUILDS, start=1)
    for kind, documents in _recorded(path).items()
    if kind in READERS
]


@pytest.mark.parametrize(("build", "kind", "documents"), CASES)
def test_document_of_build_is_read_or_refused_with_sentence(build: int, kind: str, documents: list[Any]) -> None:
    assert documents or build < len(BUILDS)
    for document in documents:
        refused = REFUSED.get((build, kind))
        if refused is None:
            assert READERS[kind](document)
            continue
        with pytest.raises((TrainflowError, HeadOfOtherVersion), match=refused):
            READERS[kind](document)


@pytest.mark.parametrize("kind", READERS)
def test_newest_documents_say_nothing_that_is_not_written_today(kind: str) -> None:
    documents = _recorded(BUILDS[-1])[kind]

    assert documents
    for document in documents:
        lost = list(_lost(document, READERS[kind](document)))
        assert lost == [], "record one more build: see the docstring of this module"


def _value(document: Any) -> Any:
    """A document, where it is kept as text."""
    return (
        msgspec.json.decode(document) if isinstance(document, str) and document[:2] in ('{"', "[{", "[]") else document
    )


def _lost(recorded: Any, today: Any, place: str = "") -> Iterator[str]:
    """Where a document of today says less, or something else: what it says besides has a default for who reads an
    older one. Digests of the whole change with that."""
    recorded, today = _value(recorded), _value(today)
    if isinstance(recorded, dict) and isinstance(today, dict):
        for name in recorded.keys() - {"seal", "digest"}:
            yield from _lost(recorded[name], today.get(name), f"{place}/{name}")
    elif isinstance(recorded, list) and isinstance(today, list) and len(recorded) == len(today):
        for number, (one, other) in enumerate(zip(recorded, today, strict=True)):
            yield from _lost(one, other, f"{place}/{number}")
    elif recorded != today:
        yield place


@pytest.mark.parametrize(
    ("recorded", "today", "lost"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": {"b": [1, {"c": 2}]}, "seal": "x"}, {"a": {"b": [1, {"d": 2}]}}, ["/a/b/1/c"]),
        ({"a": [1]}, {"a": [1, 2]}, ["/a"]),
        ({"a": '{"b": 1}'}, {"a": '{"b":1,"c":2}'}, []),
    ],
)
def test_lost_names_what_was_renamed_or_changed(recorded: Any, today: Any, lost: list[str]) -> None:
    assert list(_lost(recorded, today)) == lost
