"""What every template keeps to, whatever it is filled with."""

from __future__ import annotations

from importlib import resources

import pytest

TEMPLATES = {
    each.name: each.read_text()
    for each in resources.files("trainflow.pages").joinpath("templates").iterdir()
    if each.name.endswith(".html")
}


# a report is a file to print; the table of runs is included where it scrolls
@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - {"report.html", "runs_table.html"}))
def test_table_scrolls_by_itself_on_a_narrow_screen(name: str) -> None:
    for before in TEMPLATES[name].split("<table")[:-1]:
        opened = before.rpartition("<div")[2]
        assert 'class="scroll"' in opened, before[-200:]
        assert "</div>" not in opened, before[-200:]


@pytest.mark.parametrize("name", ["dag.html", "runs.html"])
def test_table_of_runs_is_included_where_it_scrolls(name: str) -> None:
    before = TEMPLATES[name].partition("{% include 'runs_table.html' %}")[0]
    assert 'class="scroll"' in before.rpartition("<div")[2]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_form_that_acts_is_shown_to_who_may_act(name: str) -> None:
    text = TEMPLATES[name]
    if 'method="post"' in text and name not in ("confirm.html", "login.html", "macros.html"):
        assert "can_act" in text
