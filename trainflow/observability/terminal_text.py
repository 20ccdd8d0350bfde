"""What text of users may do to a terminal: be shown, and coloured. Pure.

A terminal takes some of what it is sent for commands: it moves its cursor, writes over what is there, changes its
title, answers as if a person had typed, hides text or turns it around. A log, a note, an error or a name of a metric
may hold any of that.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

#: ESC [ parameters final byte (group 1, 2); strings that end with BEL or ST, or with their line; other escapes of two
#: or three characters; an escape that is no sequence
SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)([0-9;:?<=>!]*)([ -/]*[@-~])"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-OQ-WYZ\\\\`-~]?"
)
#: what is left of the controls; some of them turn text around
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: a sequence that is not over where the text ends
_OPEN = re.compile(
    "(?:(?:\x1b\\[|\x9b)[0-9;:?<=>!]*[ -/]*"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*\x1b?|\x1b[ -/]*)\\Z"
)
#: parameters of what a terminal draws: colours and weights, and nothing that hides
_COLORS = frozenset(
    {0, 1, 2, 3, 4, 22, 23, 24, *range(30, 38), 39, *range(40, 48), 49, *range(90, 98), *range(100, 108)}
)
_RESET = "\x1b[0m"
#: what is held back of a log, in case that it goes on: no colour is longer
_LONGEST_SEQUENCE = 64


def plain_text(text: str) -> str:
    """The text alone, in lines."""
    if CONTROL.search(text) is None:
        return text
    return CONTROL.sub("", SEQUENCE.sub("", text))


def colored_text(text: str) -> str:
    """The text and its colours; none goes on behind the end of a line."""
    if CONTROL.search(text) is None:
        return text
    return "\n".join(map(_ended, _with_colors(text).split("\n")))


def _ended(line: str) -> str:
    _, begun, last = line.rpartition("\x1b[")
    return f"{line}{_RESET}" if begun and not last.startswith(("0m", "m")) else line


def _with_colors(text: str, kept: str = "") -> str:
    return "".join(_pieces(text, kept))


def _pieces(text: str, kept: str) -> Iterator[str]:
    """`kept`: controls that stay."""
    position = 0
    for found in SEQUENCE.finditer(text):
        yield _without_controls(text[position : found.start()], kept)
        position = found.end()
        if found[2] == "m" and _is_color(found[1]):
            yield f"\x1b[{found[1]}m"
    yield _without_controls(text[position:], kept)


def _is_color(parameters: str) -> bool:
    """Whether all of these are colours or weights: `38;5;196` is one, of several numbers."""
    if set(parameters) - set("0123456789;:"):
        return False
    codes = [int(each or 0) for each in re.split("[;:]", parameters)]
    while codes:
        code = codes.pop(0)
        if code in (38, 48):
            del codes[: {5: 2, 2: 4}.get(codes[0] if codes else 0, len(codes))]
        elif code not in _COLORS:
            return False
    return True


def _without_controls(text: str, kept: str) -> str:
    return CONTROL.sub(lambda found: found[0] if found[0] in kept else "", text)


class TerminalLog:
    """Bytes of a log, as they come, as a terminal may be sent them: with colours that go on over lines, and lines that
    are begun anew (a progress bar). `colors`: whether it has any."""

    def __init__(self, *, colors: bool) -> None:
        self._colors = colors
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """What is shown of it. `final`: nothing follows."""
        text = self._held + self._decoder.decode(data, final)
        found = None if final else _OPEN.search(text, max(len(text) - _LONGEST_SEQUENCE, 0))
        end = len(text) if found is None else found.start()
        text, self._held = text[:end], text[end:]
        if self._colors:
            return _with_colors(text, "\r") + (_RESET if final else "")
        return _without_controls(SEQUENCE.sub("", text), "\r")
