"""Forms of params."""

from __future__ import annotations

from typing import Any

import pytest

from trainflow.pages.dag import conf_of, param_fields

PARAMS: dict[str, dict[str, Any]] = {
    "rows": {"type": "integer", "default": 5, "minimum": 1, "maximum": 9},
    "rate": {"type": "number", "default": 0.5},
    "name": {"type": "string", "default": "a", "description": "who", "pattern": "[a-z]+"},
    "fast": {"type": "boolean", "default": True},
    "mode": {"enum": ["slow", 3, None], "default": "slow"},
    "at": {"type": "string", "format": "date", "default": "2024-01-01"},
    "more": {"type": "object", "default": {"a": 1}},
    "maybe": {"type": ["null", "integer"], "default": None},
    "must": {"type": "string"},
}
AS_IT_IS = {
    "param.rows": "5", "param.rate": "0.5", "param.name": "a", "param.fast": "true", "param.mode": "slow",
    "param.at": "2024-01-01", "param.more": '{"a":1}', "param.maybe": "", "param.must": "x",
}  # fmt: skip


def test_fields_are_of_the_kind_of_their_schema() -> None:
    fields = {field.name: field for field in param_fields(PARAMS)}
    kinds = [field.kind for field in fields.values()]
    assert kinds == ["integer", "number", "text", "checkbox", "choice", "date", "json", "integer", "text"]
    assert (fields["rows"].least, fields["rows"].most, fields["rows"].value) == ("1", "9", "5")
    assert fields["mode"].choices == ["slow", "3", "null"]
    assert [name for name, field in fields.items() if field.required] == ["must"]


def test_what_is_left_as_it_was_is_not_in_conf() -> None:
    assert conf_of(PARAMS, AS_IT_IS) == {"must": "x"}


def test_what_is_changed_has_the_type_of_its_schema() -> None:
    given = {
        **AS_IT_IS,
        "param.rows": "7",
        "param.rate": "1",
        "param.mode": "3",
        "param.more": "[1]",
        "param.maybe": "4",
    }
    del given["param.fast"]
    expected = {"rows": 7, "rate": 1.0, "fast": False, "mode": 3, "more": [1], "maybe": 4, "must": "x"}
    assert conf_of(PARAMS, given) == expected


@pytest.mark.parametrize(("field", "text"), [("rows", "5.5"), ("rate", "x"), ("more", "{")])
def test_what_cannot_be_read_names_its_field(field: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"param '{field}'"):
        conf_of(PARAMS, {**AS_IT_IS, f"param.{field}": text})
