"""Which part of a list is asked for: the parameters that all lists have."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from trainflow.insight.runs.pages import MOST, MOST_SKIPPED, USUAL, page_request
from trainflow.metadata.queries.page_queries import PageRequest

#: text of a parameter: a name, or a part of one
Text = Annotated[str, Meta(min_length=1, max_length=250)]


class Paged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a list. `offset`: so many entries are left out in front; each of them is walked over."""

    limit: Annotated[int, Meta(ge=1, le=MOST)] = USUAL
    offset: Annotated[int, Meta(ge=0, le=MOST_SKIPPED)] = 0


class CursorPaged(Paged, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same of a list that may be long. `cursor`: `next_cursor` of the page before, empty for the first page;
    `order_by`: `id` the oldest first, `-id` the newest."""

    cursor: Annotated[str, Meta(max_length=200)] | None = None
    order_by: Literal["id", "-id"] = "id"

    @property
    def page(self) -> PageRequest:
        """What is asked of the database. Raises InputError."""
        return page_request(self.limit, self.cursor, self.offset, descending=self.order_by.startswith("-"))
