"""Where a pipeline file keeps its checkpoints."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from trainflow.errors import StoreNotExclusive
from trainflow.pipeline_spec.section import Section
from trainflow.storage.drivers import protocol_of
from trainflow.storage.exclusive_create import check_kind


class StoreSection(Section):
    """Where the ledger and the checkpoints are."""

    url: str
    """fsspec URL, or path relative to the project."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the fsspec file system. Credentials are better left to the environment."""

    @field_validator("url")
    @classmethod
    def _can_fence(cls, url: str) -> str:
        try:
            check_kind(url)
        except StoreNotExclusive as error:
            raise ValueError(str(error)) from None
        if protocol_of(url) == "memory":
            raise ValueError("each task is a process of its own: what one of them keeps in memory, no other sees")
        return url


def _url_as_store(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


Store = Annotated[
    StoreSection,
    BeforeValidator(_url_as_store, json_schema_input_type=str | StoreSection),
]
