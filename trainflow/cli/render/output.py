"""What a command prints - tables for people, JSON with stable keys for programs - and how it ends.

A table is fitted to the width of the terminal. Nothing that people copy or compare is broken: only sentences are
folded, at their blanks. What helps, in this order: titles are folded; sentences are; moments at midnight are written as
dates, others without seconds; columns that can be spared are left out. Where all that is not enough each row is written
as lines, a value a line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from trainflow.humanize import number

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey


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


#: the chain or a task failed, or what was looked at is not as it should be
EXIT_FAILED = 1
#: what was typed, or what is written in a file, cannot be
EXIT_WRONG_INPUT = 2
#: Ctrl-C, as shells count it
EXIT_INTERRUPTED = 130

JSON_OPTION = typer.Option(False, "--json", help="Print JSON (stable keys) instead of a table.")


def print_json(value: Any) -> None:
    """One JSON document, indented, to stdout."""
    import msgspec

    data = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(data.decode() + "\n")


def only_one(answer: Any, parts: str) -> dict[str, Any]:
    """An answer about several things, its `parts`, whose keys, where it is about one alone, also stand at the top."""
    import msgspec

    whole: dict[str, Any] = msgspec.to_builtins(answer)
    return {**whole[parts][0], **whole} if len(whole[parts]) == 1 else whole


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str, spare: Sequence[str] = ()
) -> None:
    """A listing: `columns` maps keys to titles, in capitals. `spare`: keys of columns that a narrow terminal leaves
    out, the first one first."""
    if not rows:
        typer.echo(empty)
        return
    cells = [[text(row.get(key)) for key in columns] for row in rows]
    print_table(list(columns.values()), cells, [columns[key] for key in spare if key in columns])


def print_table(titles: Sequence[str], cells: Sequence[Sequence[str]], spare: Sequence[str] = ()) -> None:
    """Print a table: in a terminal fitted to its width (`table_layout`), elsewhere as wide as it is, a row a line.
    `spare`: titles of columns that may be left out, the first one first."""
    if not sys.stdout.isatty():
        for line in plain_table([titles, *cells]):
            sys.stdout.write(f"{line}\n")
        return
    import shutil

    table, width = Table(list(titles), [list(row) for row in cells]), shutil.get_terminal_size().columns
    layout = fitted(table, width, spare)
    if layout is None:
        _print_pairs(list(as_lines(table)), width)
        return
    _print_folded(layout.table.titles, layout.widths, bold=True)
    for row in layout.table.rows:
        _print_folded(row, layout.widths)
    if layout.left_out:
        typer.secho(f"left out at this width: {', '.join(layout.left_out)}", dim=True)


def _print_folded(cells: Sequence[str], widths: Sequence[int], *, bold: bool = False) -> None:
    """One row; cells that are too long are folded at their blanks."""
    from itertools import zip_longest

    folded = [_folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for line in zip_longest(*folded, fillvalue=""):
        said = "  ".join(f"{piece:<{width}}" for piece, width in zip(line, widths, strict=True)).rstrip()
        typer.echo(typer.style(said, bold=True) if bold else said)


def _folded(cell: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]


def print_facts(facts: Mapping[str, str], *, color: str | None = None) -> None:
    """Names and what is to be said of each, under each other; nothing where that is empty. `color`: of the outcome."""
    pairs = [(name, fact) for name, fact in facts.items() if fact]
    if sys.stdout.isatty():
        import shutil

        _print_pairs(pairs, shutil.get_terminal_size().columns, color)
        return
    for line in plain_table(pairs):
        sys.stdout.write(f"{line}\n")


def _print_pairs(pairs: Sequence[tuple[str, str]], width: int, color: str | None = None) -> None:
    """Names and facts, folded at blanks: a path or an id that is too long is left to the terminal, so that it can be
    copied whole."""
    indent = max((len(name) for name, _ in pairs), default=0) + 2
    for name, fact in pairs:
        first, *more = _folded(" ".join(fact.split()), max(width - indent, 1))
        shown = typer.style(first, fg=color) if color and name == "outcome" else first
        typer.echo(typer.style(f"{name:<{indent}}", bold=True) + shown if name else "")
        for piece in more:
            typer.echo(" " * indent + (typer.style(piece, fg=color) if color and name == "outcome" else piece))


def plain_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns that stand under each other, two spaces apart, and nothing behind the last."""
    lines = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines]


def text(value: Any) -> str:
    """A value as people read it."""
    match value:
        case None:
            return ""
        case datetime():
            from trainflow.samples.partitions import label

            return label(value)
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value)
        case int():
            return f"{value:,}"
        case list() | tuple():
            return ", ".join(text(item) for item in value)
    return str(value)


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float]) -> str:
    """Values as bars of one line, from the lowest to the highest; empty for fewer than two."""
    import math

    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, reach = min(finite), max(finite) - min(finite)
    places = [(value - low) / reach if reach else 0.5 for value in finite]
    return "".join(_BARS[min(len(_BARS) - 1, int(place * len(_BARS)))] for place in places)


_NAMES = ("pipeline", "stage", "branch")


def columns_of(keys: Sequence[ChainKey]) -> dict[str, str]:
    """The columns that tell these chains apart; none for one chain."""
    return {name: name.upper() for name in _NAMES if len({getattr(key, name) for key in keys}) > 1}


def said_of(key: ChainKey, keys: Sequence[ChainKey]) -> str:
    """What a line about this chain begins with, among lines about others: `base    `; nothing where it is alone."""
    widths = {name: max(len(getattr(each, name)) for each in keys) for name in columns_of(keys)}
    return "".join(f"{getattr(key, name):<{width}}  " for name, width in widths.items())
