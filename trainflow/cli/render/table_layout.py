"""How a table is fitted to the width of a terminal. Pure.

Nothing that people copy or compare is broken: only sentences are folded, at their blanks. What helps, in this order:
titles are folded; sentences are; moments at midnight are written as dates, others without seconds; columns that can be
spared are left out. Where all that is not enough each row is written as lines, a value a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: how narrow a column of sentences may become, in characters
READABLE = 20
#: between two columns
GAP = 2
_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)T00:00Z")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d):\d\dZ")


class Table(NamedTuple):
    """Titles, and as many cells in each row."""

    titles: list[str]
    rows: list[list[str]]

    def without(self, columns: Sequence[int]) -> Table:
        """The same without these columns."""
        kept = [each for each in range(len(self.titles)) if each not in columns]
        return Table([self.titles[each] for each in kept], [[row[each] for each in kept] for row in self.rows])

    def columns(self) -> list[list[str]]:
        """The cells of each column."""
        return [[row[each] for row in self.rows] for each in range(len(self.titles))]


class Layout(NamedTuple):
    """What is written, how wide each column is, and the titles of those that were left out."""

    table: Table
    widths: list[int]
    left_out: list[str]


def fitted(table: Table, width: int, spare: Sequence[str] = ()) -> Layout | None:
    """The table in so many characters; None: it does not fit. `spare`: titles of the columns that may be left out, the
    first one first."""
    nothing = [place for place, column in enumerate(table.columns()) if not table.titles[place] and not any(column)]
    for candidate, left_out in _candidates(table.without(nothing), spare):
        widths = _widths(candidate, width)
        if widths is not None:
            return Layout(candidate, widths, left_out)
    return None


def _candidates(table: Table, spare: Sequence[str]) -> Iterator[tuple[Table, list[str]]]:
    yield table, []
    shorter = shortened(table)
    yield shorter, []
    places = [table.titles.index(title) for title in spare if title in table.titles]
    for count in range(1, len(places) + 1):
        yield shorter.without(places[:count]), [table.titles[each] for each in places[:count]]


def shortened(table: Table) -> Table:
    """Columns in which all moments are midnights as dates, other moments without seconds."""
    columns = [_shorter(column) for column in table.columns()]
    return Table(table.titles, [list(row) for row in zip(*columns, strict=True)] if columns else table.rows)


def _shorter(column: list[str]) -> list[str]:
    said = [cell for cell in column if cell]
    if said and all(_MIDNIGHT.fullmatch(cell) for cell in said):
        return [_MIDNIGHT.sub(r"\1", cell) for cell in column]
    return [_MOMENT.sub(r"\1Z", cell) for cell in column]


def _widths(table: Table, width: int) -> list[int] | None:
    """Widths of the columns, the narrowest that are needed beyond what does not fit as it is; None: too narrow."""
    natural, least = [], []
    for title, column in zip(table.titles, table.columns(), strict=True):
        widest = max(map(len, column), default=0)
        natural.append(max(len(title), widest))
        # blanks of a column of figures, "14 days", fold no better than a date does
        folded = max(min(widest, READABLE), *map(_longest_word, column)) if column else 0
        least.append(max(_longest_word(title), folded))
    room = width - GAP * (len(natural) - 1)
    if sum(natural) <= room:
        return natural
    left = room - sum(least)
    if left < 0:
        return None
    for place, (narrow, wide) in enumerate(zip(least, natural, strict=True)):
        more = min(left, wide - narrow)
        least[place] += more
        left -= more
    return least


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def as_lines(table: Table) -> Iterator[tuple[str, str]]:
    """Each row as titles and values, what is empty left out; between two rows a pair that is empty."""
    for place, row in enumerate(table.rows):
        if place:
            yield "", ""
        yield from ((title, cell) for title, cell in zip(table.titles, row, strict=True) if cell)
