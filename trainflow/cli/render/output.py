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

    from trainflow.cli.render.table_layout import Table, as_lines, fitted

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
