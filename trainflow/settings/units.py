"""Types of settings that have a unit, or bounds."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0)]
SecondsOrNone = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Gigabytes = Annotated[float, Meta(ge=0)]
#: a table is of options that the driver hands on: `client_kwargs = {region_name = "eu-west-1"}`
StorageOption = str | int | float | bool | dict[str, Any]
