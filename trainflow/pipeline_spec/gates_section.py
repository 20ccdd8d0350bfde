"""What a checkpoint must satisfy to be committed and to be promoted."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from trainflow.checkpoints.actions.promote import Promote, check_alias
from trainflow.checkpoints.commit.conditions import parse_condition
from trainflow.checkpoints.commit.gates import STOP, Gate, rewind_of
from trainflow.errors import InputError
from trainflow.pipeline_spec.section import Section


def _condition(text: str) -> str:
    try:
        parse_condition(text)
    except InputError as error:
        raise ValueError(str(error)) from None
    return text


def _action(text: str) -> str:
    try:
        rewind_of(text)
    except InputError as error:
        raise ValueError(str(error)) from None
    return text


def _alias(text: str) -> str:
    try:
        return check_alias(text)
    except InputError as error:
        raise ValueError(str(error)) from None


Condition = Annotated[
    str, AfterValidator(_condition), WithJsonSchema({"type": "string", "examples": ["auc >= 0.6", "loss is finite"]})
]
Action = Annotated[
    str,
    AfterValidator(_action),
    WithJsonSchema({"type": "string", "pattern": r"^(stop|skip|rewind\s+[1-9]\d*)$", "examples": ["skip", "rewind 2"]}),
]


class GateSection(Section):
    """A condition, and what happens when the metrics do not meet it."""

    require: Condition
    """`auc >= 0.6`, `auc >= 0.98 * previous` (the parent's), `loss <= previous + 0.01`, `loss is finite`."""
    otherwise: Action = STOP
    """`stop`: nothing is committed until a person decides (`trainflow resume`). `skip`: this split is left out and
    recorded as a hole. `rewind N`: go back N checkpoints and train forward again, once for a split. When several gates
    refuse, the most severe is done: stop, rewind, skip."""


class PromoteSection(Section):
    """An alias for good checkpoints, in the ledger and in the MLflow model registry."""

    alias: Annotated[str, AfterValidator(_alias), WithJsonSchema({"type": "string", "examples": ["champion"]})]
    """The alias: letters, digits, `_`, `-`."""
    when: Annotated[
        list[Condition],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=Any),
        Field(default_factory=list),
    ]
    """Conditions as those of gates, all of which must be met; none: every checkpoint gets it."""


def _text_as_gate(value: Any) -> Any:
    return {"require": _condition(value)} if isinstance(value, str) else value


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


#: a condition alone stops
Gates = list[Annotated[GateSection, BeforeValidator(_text_as_gate, json_schema_input_type=Condition | GateSection)]]
Promotes = Annotated[
    list[PromoteSection], BeforeValidator(_one_as_list, json_schema_input_type=PromoteSection | list[PromoteSection])
]


def gates_of(sections: list[GateSection]) -> list[Gate]:
    """The gates that sections describe."""
    return [Gate(section.require, section.otherwise) for section in sections]


def promotes_of(sections: list[PromoteSection]) -> list[Promote]:
    """The promotions that sections describe."""
    return [Promote(section.alias, tuple(section.when)) for section in sections]
