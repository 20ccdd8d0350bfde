"""What a narrow terminal does to a table, in which order, and that nothing is broken."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflow.cli.render.output import GAP, Table, _folded, as_lines, fitted, shortened

ID, RUN = "01m8nwwf1zzhwb873vbzv2442q", "operator_triggered__b494b863a4529dabf90b"
TABLE = Table(
    ["CHECKPOINT", "", "ID", "TRAINED UP TO", "COMMITTED", "SCORES"],
    [
        ["14", "", ID, "2013-07-16T00:00Z", "2026-11-30T09:34:26Z", "auc 0.742 base_rate 0.3277 brier 0.1879"],
        ["27", "head", ID, "2014-01-01T00:00Z", "2026-11-30T09:34:30Z", ""],
    ],
)


@pytest.mark.parametrize(
    ("width", "trained", "committed", "left_out"),
    [
        (200, "2013-07-16T00:00Z", "2026-11-30T09:34:26Z", []),
        (115, "2013-07-16T00:00Z", "2026-11-30T09:34:26Z", []),  # the sentence is folded
        (100, "2013-07-16", "2026-11-30T09:34Z", []),  # moments are shorter
        (80, "2013-07-16", "2026-11-30T09:34Z", ["ID"]),
        (50, "2013-07-16", None, ["ID", "COMMITTED"]),
    ],
)
def test_table_is_fitted_step_by_step(width: int, trained: str, committed: str | None, left_out: list[str]) -> None:
    layout = fitted(TABLE, width, ("ID", "COMMITTED"))

    assert layout is not None
    first = dict(zip(layout.table.titles, layout.table.rows[0], strict=True))
    assert (first["TRAINED UP TO"], first.get("COMMITTED"), layout.left_out) == (trained, committed, left_out)


def test_table_that_does_not_fit_is_lines() -> None:
    assert fitted(TABLE, 30, ("ID", "COMMITTED")) is None
    lines = list(as_lines(TABLE))
    assert lines[:3] == [("CHECKPOINT", "14"), ("ID", ID), ("TRAINED UP TO", "2013-07-16T00:00Z")]
    assert lines[5] == ("", "")
    assert lines[7] == ("", "head")


def test_column_of_other_moments_keeps_its_hours() -> None:
    table = Table(["AT"], [["2013-07-16T00:00Z"], ["2013-07-16T06:00Z"], [""]])
    assert shortened(table).rows == table.rows


def test_column_without_title_and_content_takes_no_room() -> None:
    layout = fitted(Table(["A", ""], [["1", ""]]), 80)
    assert layout is not None
    assert (layout.table.titles, layout.widths) == (["A"], [1])


words = st.text("abz0_:-", min_size=1, max_size=30)
cells = st.lists(words, max_size=6).map(" ".join)


@given(st.integers(1, 5).flatmap(lambda count: st.lists(st.tuples(*[cells] * count), max_size=4)), st.integers(1, 120))
@settings(max_examples=100)
def test_no_word_is_ever_broken(rows: list[tuple[str, ...]], width: int) -> None:
    count = len(rows[0]) if rows else 1
    table = Table([f"TITLE {number}" for number in range(count)], [list(row) for row in rows])

    layout = fitted(table, width)

    if layout is None:
        assert [cell for _, cell in as_lines(table) if cell] == [cell for row in rows for cell in row if cell]
        return
    assert sum(layout.widths) + GAP * (len(layout.widths) - 1) <= width
    for row in [layout.table.titles, *layout.table.rows]:
        for cell, wide in zip(row, layout.widths, strict=True):
            pieces = _folded(cell, wide)
            assert all(len(piece) <= wide for piece in pieces)
            assert " ".join(pieces).split() == cell.split()
