"""Templates, and how values are written in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from typing import Any
from urllib.parse import quote

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from trainflow.humanize import bytes_text, counted, duration, number, percent
from trainflow.pages.log_text import log_markup

#: a JSON value that is longer is cut in a page, in characters
_MOST_JSON = 20_000


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates of this package. Everything that is not marked as HTML is escaped."""
    made = Environment(
        loader=PackageLoader("trainflow.pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "amount": amount,
        "counted": counted,
        "as_json": as_json,
        "day": day,
        "duration": duration,
        "log": log_markup,
        "moment": moment,
        "number": lambda value: "" if value is None else number(value),
        "percent": percent,
        "segment": segment,
        "size": lambda count: "" if count is None else bytes_text(round(count)),
        "words": words,
    }
    made.globals["version"] = metadata.version("trainflow")
    return made


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page."""
    return environment().get_template(template).render(values)


def segment(name: Any) -> str:
    """A name as one segment of a path: what is in it separates nothing."""
    return quote(str(name), safe="")


def words(name: Any) -> str:
    """A state as people read it: `up_for_retry` is up for retry."""
    return str(name).replace("_", " ")


def moment(value: datetime | None) -> Markup:
    """A moment in UTC, to the second, as a `time` element."""
    if value is None:
        return Markup("")
    utc = value.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(utc.isoformat(timespec="seconds"), f"{utc:%Y-%m-%d %H:%M:%S}")


def day(value: datetime | None) -> str:
    """A partition's start: its date alone where it starts at midnight."""
    if value is None:
        return ""
    utc = value.astimezone(UTC)
    return f"{utc:%Y-%m-%d}" if (utc.hour, utc.minute) == (0, 0) else f"{utc:%Y-%m-%d %H:%M}"


def amount(count: float | None) -> str:
    """A number of things; empty where it is not known."""
    return "" if count is None else f"{count:,.0f}"


def as_json(value: Any) -> Markup:
    """A value as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    cut = f"\n… ({len(text):,} characters)" if len(text) > _MOST_JSON else ""
    return escape(text[:_MOST_JSON] + cut)
