"""A log as HTML: colours of terminals become classes, everything else is text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from trainflow.observability.terminal_text import CONTROL, SEQUENCE

_COLORS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


class _Style:
    def __init__(self) -> None:
        self.color = ""
        self.bold = False

    def take(self, codes: list[int]) -> None:
        while codes:
            code = codes.pop(0)
            if code == 0:
                self.color, self.bold = "", False
            elif code == 1:
                self.bold = True
            elif code == 22:
                self.bold = False
            elif 30 <= code <= 37 or 90 <= code <= 97:
                self.color = _COLORS[code % 10]
            elif code == 39:
                self.color = ""
            elif code in (38, 48):
                # a colour of 256, or of three numbers: no class for these
                del codes[: 2 if codes[:1] == [5] else 4]

    @property
    def classes(self) -> str:
        return " ".join(filter(None, (f"ansi-{self.color}" if self.color else "", "ansi-bold" if self.bold else "")))


def log_markup(text: str) -> Markup:
    """The text of a log as HTML."""
    return Markup("").join(_pieces(text))


def _pieces(text: str) -> Iterator[Markup]:
    style, position, text = _Style(), 0, _lines(text)
    for found in SEQUENCE.finditer(text):
        yield _styled(text[position : found.start()], style)
        position = found.end()
        if found[2] == "m":
            style.take([int(code) if code.isdecimal() else 0 for code in re.split("[;:]", found[1])])
    yield _styled(text[position:], style)


def _lines(text: str) -> str:
    """Each carriage return begins a line anew, as a progress bar does: only what was written last is left."""
    text = text.replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _styled(text: str, style: _Style) -> Markup:
    written = escape(CONTROL.sub("", text))
    classes = style.classes
    return Markup('<span class="{}">{}</span>').format(classes, written) if classes and written else written
