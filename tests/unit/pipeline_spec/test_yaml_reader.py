from __future__ import annotations

import re
from typing import Any

import pytest

from trainflow.errors import PipelineFileError
from trainflow.pipeline_spec.problems import SourcePlace
from trainflow.pipeline_spec.yaml_reader import read_document


def test_values_remember_where_they_and_their_keys_stand() -> None:
    document = read_document("samples:\n  path: here\n  columns:\n    - a\n    - b\n", "p.yaml")
    assert document.value == {"samples": {"path": "here", "columns": ["a", "b"]}}
    assert document.place_of(("samples", "path")) == SourcePlace("p.yaml", 2, 9)
    assert document.place_of(("samples", "path"), key=True) == SourcePlace("p.yaml", 2, 3)
    assert document.place_of(("samples", "columns", 1)) == SourcePlace("p.yaml", 5, 7)


def test_place_absent_is_that_of_nearest_section() -> None:
    document = read_document("samples:\n  path: here\n", "p.yaml")
    assert document.place_of(("samples", "ready", "marker"), key=True) == SourcePlace("p.yaml", 1, 1)
    assert document.place_of(("train",)) == SourcePlace("p.yaml", 1, 1)


def test_dates_stay_text_they_are_written_as() -> None:
    text = "a: 2013-01-01\nb: 2013-01-01 00:00:00\nc: 1d\nd: 3\ne: 0.5\nf: true\ng:\n"
    assert read_document(text, "p").value == {
        "a": "2013-01-01",
        "b": "2013-01-01 00:00:00",
        "c": "1d",
        "d": 3,
        "e": 0.5,
        "f": True,
        "g": None,
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("-1E5", -100_000.0),
        ("10e+2", 1000.0),
        ("1.5e3", 1500.0),
        ("-.5e-2", -0.005),
        (".5", 0.5),
        ("5.", 5.0),
        ("0", 0),
        ("-7", -7),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0o17", 15),
        # the minutes of a day, and no number to the base of 60
        ("12:30", "12:30"),
        ("1:30.5", "1:30.5"),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1.2.3", "1.2.3"),
        ("1e5x", "1e5x"),
        ("!!str 1e-3", "1e-3"),
        ("'1e-3'", "1e-3"),
        ("'012'", "012"),
        ("'no'", "no"),
        ("TRUE", True),
    ],
)
def test_value_is_a_number_where_people_and_yaml_1_2_read_one(written: str, value: Any) -> None:
    found = read_document(f"a: {written}", "p").value["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("012", "'012' may be meant as text: quote it, or leave the 0 before it out"),
        ("-08", "'-08' may be meant as text"),
        ("no", "'no' may be meant as text: quote it, or write true or false"),
        ("Yes", "'Yes' may be meant as text"),
        ("off", "'off' may be meant as text"),
        ("1e400", "'1e400' has no form in JSON: write a finite number"),
    ],
)
def test_value_that_is_read_in_two_ways_is_refused(written: str, says: str) -> None:
    with pytest.raises(PipelineFileError, match=re.escape(says)):
        read_document(f"a: {written}", "p")


def test_alias_is_its_own_copy() -> None:
    value = read_document("a: &x {k: 1}\nb: *x\n", "p").value
    value["b"]["k"] = 2
    assert value["a"] == {"k": 1}


def test_merged_keys_yield_to_own_keys_and_keep_places() -> None:
    document = read_document("base: &x\n  retries: 1\n  timeout: 1h\ntask:\n  timeout: 2h\n  <<: *x\n", "p.yaml")
    assert document.value["task"] == {"retries": 1, "timeout": "2h"}
    assert document.place_of(("task", "timeout")).line == 5
    assert document.place_of(("task", "retries")).line == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2\n", "p.yaml:2:1: key 'a' is written twice"),
        ("s:\n  b: 1\n  b: 2\n", "p.yaml:3:3: key 's.b' is written twice"),
        ("1: x\n", "p.yaml:1:1: key '1' is not text: quote it"),
        ("on: x\n", "p.yaml:1:1: key 'on' is not text: quote it"),
        ("a: !!python/object:os.system x\n", "p.yaml:1:4: tag"),
        ("a: !secret x\n", "p.yaml:1:4: tag '!secret' is not allowed"),
        ("a: !!binary aGVsbG8=\n", "p.yaml:1:4: tag '!!binary' is not allowed"),
        ("a: .nan\n", "p.yaml:1:4: '.nan' has no form in JSON"),
        ("a: &x [*x]\n", "p.yaml:1:4: an alias inside the section it stands for"),
        ("a: [1,\n", "p.yaml:2:1: not valid YAML"),
        ("a: b: c\n", "p.yaml:1:5: not valid YAML"),
        ("a:\n\t- b\n", "p.yaml:2:1: not valid YAML"),
        ("a: *missing\n", "p.yaml:1:4: not valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2:1: not valid YAML: expected a single document"),
        ("a: \x00\n", "p.yaml: not valid YAML"),
        ("a: {<<: 3}\n", "p.yaml:1:9: '<<' merges sections only"),
    ],
)
def test_refusal_names_line_and_column(text: str, told: str) -> None:
    with pytest.raises(PipelineFileError) as caught:
        read_document(text, "p.yaml")
    assert str(caught.value).startswith(told)


def test_problems_are_in_order_of_file() -> None:
    with pytest.raises(PipelineFileError) as caught:
        read_document("a: .inf\nb: 1\nb: 2\n2: x\n", "p.yaml")
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "p.yaml:1:4:",
        "p.yaml:3:1:",
        "p.yaml:4:1:",
    ]
    assert (caught.value.line, caught.value.column) == (1, 4)


def test_aliases_that_multiply_end_before_memory_does() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(PipelineFileError, match="aliases repeat too much"):
        read_document("\n".join(lines), "p.yaml")


def test_empty_file_is_nothing() -> None:
    document = read_document("# only a comment\n", "p.yaml")
    assert document.value is None
    assert document.place_of(()) == SourcePlace("p.yaml", 1, 1)
