"""What a command prints - tables for people, JSON with stable keys for programs - and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from trainflow.humanize import number

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey

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


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """A listing: `columns` maps keys to titles, in capitals."""
    if not rows:
        typer.echo(empty)
        return
    print_table(list(columns.values()), [[text(row.get(key)) for key in columns] for row in rows])


def print_table(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print a table: in a terminal folded to its width, sentences rather than dates and ids; elsewhere as wide as it
    is, a row a line."""
    if not sys.stdout.isatty():
        for line in plain_table([titles, *cells]):
            sys.stdout.write(f"{line}\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, width in zip(titles, _least_widths(titles, cells, console.width), strict=True):
        table.add_column(title, overflow="fold", min_width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


#: how wide a column that may be folded stays, in characters
_READABLE = 20
#: between two columns
_GAP = 2


def _least_widths(titles: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int | None]:
    """How narrow each column may become, None: as it comes. Columns of dates and ids stay whole, as many of them as
    find room, the widest last."""
    columns = [list(column) for column in zip(titles, *cells, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    whole = {number for number, column in enumerate(columns) if not any(" " in cell for cell in column[1:])}
    while whole:
        least = [wide if number in whole else min(wide, _READABLE) for number, wide in enumerate(widths)]
        if sum(least) + _GAP * (len(least) - 1) <= width:
            break
        whole.remove(max(whole, key=lambda number: widths[number]))
    return [wide if number in whole else None for number, wide in enumerate(widths)]


def print_facts(facts: Mapping[str, str], *, style: str | None = None) -> None:
    """Names and what is to be said of each, under each other; nothing where that is empty. `style`: how Rich is to draw
    the outcome, if at all."""
    facts = {name: fact for name, fact in facts.items() if fact}
    if not sys.stdout.isatty():
        for line in plain_table(list(facts.items())):
            sys.stdout.write(f"{line}\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        table.add_row(name, Text(fact, style=(style or "") if name == "outcome" else ""))
    Console(highlight=False).print(table)


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
