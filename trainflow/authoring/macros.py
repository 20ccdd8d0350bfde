"""What `macros` offers to templates."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Final


class Macros:
    """Names under `macros.` in a template (Airflow's)."""

    datetime = datetime
    date = date
    time = time
    timedelta = timedelta

    @staticmethod
    def ds_add(ds: str, days: int) -> str:
        """The day `days` after the day `ds` (YYYY-MM-DD)."""
        return (date.fromisoformat(ds) + timedelta(days=days)).isoformat()

    @staticmethod
    def ds_format(ds: str, input_format: str, output_format: str) -> str:
        """`ds` in another format (strptime, strftime)."""
        return datetime.strptime(ds, input_format).strftime(output_format)  # noqa: DTZ007 - a calendar day


MACROS: Final = Macros()
