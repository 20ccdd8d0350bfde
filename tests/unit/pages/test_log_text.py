"""Logs as HTML."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.pages.log_text import log_markup


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\x1b[31mred\x1b[0m plain", '<span class="ansi-red">red</span> plain'),
        (
            "\x1b[1;92mgood\x1b[39m bold",
            '<span class="ansi-green ansi-bold">good</span><span class="ansi-bold"> bold</span>',
        ),
        ("\x1b[38;5;200mof 256\x1b[m", "of 256"),
        ("\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x1b\\after", "after"),
        ("10%\r20%\r100%\ndone", "100%\ndone"),
        ("turned \u202egnp.exe", "turned gnp.exe"),
        ("\x1b[31", "[31"),
    ],
)
def test_log_is_written_as(text: str, html: str) -> None:
    assert str(log_markup(text)) == html


@given(st.text(alphabet=st.sampled_from("\x1b[]0;1m38<>&\"'\r\nab\x07\\Jq")))
def test_log_of_anything_holds_no_element_but_spans(text: str) -> None:
    html = str(log_markup(text))
    assert not re.sub(r'<span class="[a-z -]+">|</span>', "", html).count("<")
    assert "\x1b" not in html
