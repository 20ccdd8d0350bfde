"""What text of users may do to a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.observability.terminal_text import TerminalLog, colored_text, plain_text

RED, RESET = "\x1b[31m", "\x1b[0m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a note: 3 % über\n\tnext ☹", "a note: 3 % über\n\tnext ☹"),
        # cursor, screen, scrolling, modes, reports that are typed as if by a person
        ("a\x1b[2J\x1b[H\x1b[3Ab\x1b[?1049h\x1b[6n\x1b[>c", "ab"),
        ("a\x9b2Jb", "ab"),
        # title, link, clipboard; one that does not end takes its line
        ("\x1b]0;owned\x07a", "a"),
        ("\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\", "text"),
        ("\x1b]52;c;cm0gLXJm\x07b", "b"),
        ("a\x1b]0;title\nb", "a\nb"),
        ("\x1bP$q\x1b\\a\x1b_x\x1b\\b\x9dtitle\x9cc", "abc"),
        # reset, character sets, a lone escape
        ("\x1bca\x1b(0b\x1b", "ab"),
        ("a\x08\x08b\x07\x0b\x0c\x00\x7f", "ab"),
        ("a\rb", "ab"),
        # text that is turned around
        ("\u202etxt.exe\u2066", "txt.exe"),
        (f"{RED}red{RESET}", "red"),
    ],
)
def test_plain_text_is_text_alone(text: str, shown: str) -> None:
    assert plain_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"{RED}red{RESET} and not", f"{RED}red{RESET} and not"),
        (f"a {RED}red\nb", f"a {RED}red{RESET}\nb"),
        ("\x1b[1;38;5;196mx\x1b[m", "\x1b[1;38;5;196mx\x1b[m"),
        ("\x1b[38;2;1;2;3mx\x1b[0m", "\x1b[38;2;1;2;3mx\x1b[0m"),
        # hidden, blinking, turned over
        ("\x1b[8mhidden\x1b[5mb\x1b[7mc", "hiddenbc"),
        ("\x1b[31;8mhidden", "hidden"),
        ("\x1b[2Ja", "a"),
    ],
)
def test_colored_text_keeps_colors_within_a_line(text: str, shown: str) -> None:
    assert colored_text(text) == shown


@given(st.text(alphabet=st.characters() | st.sampled_from("\x1b\x9b\x9d[]?;m\x07\r\n0123456789JHPc\\")))
def test_nothing_but_colors_and_lines_is_left_of_any_text(text: str) -> None:
    controls = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"}
    assert not controls & set(plain_text(text))
    rest = "".join(
        part if number == 0 else part.partition("m")[2] for number, part in enumerate(colored_text(text).split("\x1b["))
    )
    assert not controls & set(rest)


@given(st.lists(st.binary(max_size=9), max_size=6), st.booleans())
def test_log_in_pieces_is_what_it_is_as_a_whole(pieces: list[bytes], colors: bool) -> None:
    log, whole = TerminalLog(colors=colors), TerminalLog(colors=colors)
    shown = "".join(log.feed(piece) for piece in pieces) + log.feed(b"", final=True)
    assert shown == whole.feed(b"".join(pieces), final=True)


def test_log_keeps_colors_over_lines_and_progress_bars() -> None:
    log = TerminalLog(colors=True)
    assert log.feed(b"\x1b[3") == ""
    assert log.feed(b"1mred\nstill\x1b[2J 10%\r 20%\xe2\x98") == f"{RED}red\nstill 10%\r 20%"
    assert log.feed(b"\xb9\n", final=True) == f"☹\n{RESET}"
    assert TerminalLog(colors=False).feed(b"\x1b[31mred\x1b[0m\n", final=True) == "red\n"
