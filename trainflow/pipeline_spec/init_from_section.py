"""Where a stage's weights come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from trainflow.checkpoints.chain import ChainKey
from trainflow.errors import InputError
from trainflow.operators.init_from import parse_init_from, parse_pin
from trainflow.pipeline_spec.fields import Name
from trainflow.pipeline_spec.section import Section


class InitFromSection(Section):
    """The base: the chain whose checkpoints the runs of this stage start from."""

    stage: Name | None = None
    """Name of the stage."""
    at: Literal["same_watermark", "latest", "promoted"] | None = None
    """`same_watermark` (the default): from the base's next checkpoint that has trained more, on what lies between. Of a
    base that is declared further down: from its checkpoint at this stage's own watermark, so that day D starts from the
    base's day D-1. `latest`: from the newest one. `promoted`: from the newest one that a gate promoted."""
    once: bool = False
    """Only the first run starts from the base, once that is caught up; the stage goes on from its own checkpoints."""
    alias: Name | None = None
    """With `at: promoted`: the alias that is meant; default: any."""
    pipeline: Name | None = None
    """Pipeline of the base, in the same store; default: this one."""
    branch: Name | None = None
    """Branch of the base; default: this one, and of another pipeline `main`."""
    checkpoint: str | None = None
    """In place of all others: `pipeline/stage/branch@checkpoint`, or without `@checkpoint` the head of that chain; the
    first run starts from it. May be written without the key."""

    @model_validator(mode="after")
    def _possible(self) -> InitFromSection:
        others = [name for name in type(self).model_fields if name != "checkpoint" and getattr(self, name)]
        if self.checkpoint is not None and others:
            raise ValueError(f"'checkpoint' says all: leave out {', '.join(others)}")
        if self.alias and self.at != "promoted":
            raise ValueError("'alias' belongs to at: promoted")
        try:
            if self.checkpoint is not None:
                parse_pin(self.checkpoint)
            else:
                parse_init_from(self.as_argument(), ChainKey("any", "a-name-that-is-not-known-here"))
        except InputError as error:
            raise ValueError(str(error).removeprefix("init_from: ")) from None
        return self

    def as_argument(self, *, feedback: bool = False, through: Sequence[str] = ()) -> dict[str, Any] | str:
        """What CheckpointOperator takes as `init_from`."""
        if self.checkpoint is not None:
            return self.checkpoint
        given = self.model_dump(exclude_none=True, exclude_defaults=True)
        back = {"feedback": True, **({"through": list(through)} if through else {})}
        return {**given, **back} if feedback else given


def _text_as_section(value: Any) -> Any:
    return {"checkpoint": value} if isinstance(value, str) else value


Base = Annotated[InitFromSection, BeforeValidator(_text_as_section, json_schema_input_type=str | InitFromSection)]
