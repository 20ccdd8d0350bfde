"""Whatever a person writes, they get their values back or one PipelineFileError that names places; nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflow.errors import PipelineFileError
from trainflow.pipeline_spec.load import content_of, json_schema
from trainflow.pipeline_spec.model import PipelineFile
from trainflow.pipeline_spec.overrides import apply_overrides
from trainflow.pipeline_spec.problems import error_of
from trainflow.pipeline_spec.validation import validate
from trainflow.pipeline_spec.yaml_reader import read_document

SPEC = {
    "pipeline": "tiny",
    "samples": {"path": "d/{start:%Y-%m-%d}/", "length": "1d", "start": "2013-01-01", "ready": {"marker": "_SUCCESS"}},
    "split": {"partitions": 14},
    "train": {"command": ["python", "train.py"], "retries": 1},
    "gates": ["auc >= 0.6"],
    "params": {"a": {"b": [1, 2]}},
}

plain_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Co", "Cn")), max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain_text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3), max_leaves=12
)


def places_in(value: Any, location: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [location, *(place for key, inner in items for place in places_in(inner, (*location, key)))]


def refusal(action: Callable[[], Any]) -> str | None:
    """What a PipelineFileError said, None when there was none; any other error is the test's."""
    try:
        action()
    except PipelineFileError as error:
        return str(error)
    return None


@given(values)
def test_yaml_written_is_read_with_places(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    document = read_document(text, "p.yaml")
    assert json.dumps(document.value) == json.dumps(value)
    assert document.places.keys() >= set(places_in(value))
    lines = text.count("\n") + 1
    assert all(1 <= (place.line or 0) <= lines for place in document.places.values())


@given(st.text(alphabet="ab:- \n\t[]{}&*!#|>'\"%@`?,.0<~\x00é", max_size=60))
@settings(max_examples=300)
def test_yaml_any_text_is_read_or_refused_with_message(text: str) -> None:
    told = refusal(lambda: json.dumps(read_document(text, "p.yaml").value, allow_nan=False))
    assert told is None or told.startswith("p.yaml:")


@given(st.data())
def test_yaml_wrong_value_is_told_at_its_place(data: st.DataObject) -> None:
    """Replace any one value of a good file by any other: the file stays good, or each problem has its line."""
    spec = json.loads(json.dumps(SPEC))
    location = data.draw(st.sampled_from([place for place in places_in(spec) if place]))
    section = spec
    for part in location[:-1]:
        section = section[part]
    section[location[-1]] = data.draw(values)
    document = read_document(yaml.safe_dump(spec, allow_unicode=True, width=10_000), "p.yaml")
    told = refusal(lambda: content_of(validate(document, None)))
    assert told is None or re.match(r"p\.yaml:\d+:\d+: ", told)


@given(st.dictionaries(st.text("ab.splt", max_size=8), plain_text | st.just("{a: [1]}"), max_size=3))
def test_override_is_applied_or_refused_by_name(overrides: dict[str, str]) -> None:
    document = read_document(yaml.safe_dump(SPEC), "p.yaml")
    problems = apply_overrides(document, overrides)
    for problem in problems:
        assert problem.place.source.startswith("--set ")
    if problems:
        with pytest.raises(PipelineFileError, match="--set "):
            raise error_of(problems)


def test_examples_of_this_repository_satisfy_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    checker = jsonschema.Draft202012Validator(json_schema())
    files = sorted((Path(__file__).parents[2] / "pipelines").glob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        value = read_document(file.read_text(), file.name).value
        assert not list(checker.iter_errors(value)), file
    assert list(checker.iter_errors({"pipeline": "x"}))
    assert PipelineFile.model_fields.keys() == json_schema()["properties"].keys()
