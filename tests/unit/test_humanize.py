"""How many of what, in words; and no module writes a plural of its own behind a number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import trainflow
from trainflow.humanize import agreeing, bytes_text, counted, duration, percent, plural

_ROOT = Path(trainflow.__file__).parent
_NOUNS = ["partition", "run", "hole", "file", "checkpoint", "delivery", "task", "entry", "attempt", "chain", "DAG"]
_NOUNS += ["leftover", "slot", "retry", "problem"]
#: of a limit ("2 of 2 runs are running") there is never just one worth a word of its own
_PLURAL_BEHIND_A_NUMBER = re.compile(
    rf"^ ({'|'.join(plural(noun) for noun in _NOUNS)})\b(?! are running| were looked| outside| and has| again)"
)


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "partition", "0 partitions"),
        (1, "partition", "1 partition"),
        (2000, "row", "2,000 rows"),
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
        (3, "delivery", "3 deliveries"),
        (2, "day", "2 days"),
        (2, "branch", "2 branches"),
        (2, "free slot", "2 free slots"),
    ],
)
def test_number_of_things(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (18_400, "18.4 kB"),
        (99_960, "100 kB"),
        (999_600, "1 MB"),
        (10**18, "1000 PB"),
    ],
)
def test_bytes_text_has_three_digits(count: int, said: str) -> None:
    assert bytes_text(count) == said


@pytest.mark.parametrize(
    ("done", "total", "said"),
    [(0, 3000, "0%"), (77, 3000, "2%"), (29, 100, "29%"), (0.29, 1, "29%"), (2999, 3000, "99%"), (3000, 3000, "100%")]
    + [(3100, 3000, "100%")],
)
def test_percent_is_all_only_when_all_is_done(done: float, total: float, said: str) -> None:
    assert percent(done, total) == said


def test_humanize_verb_agrees() -> None:
    assert [agreeing(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


def _written_by_hand(source: str) -> Iterator[int]:
    """Lines of the f-strings that put a plural behind a value; "3/10 partitions" is a share, no number of things."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            before = [None, *node.values]
            for share, value, text in zip(before, node.values, node.values[1:], strict=False):
                is_share = isinstance(share, ast.Constant) and str(share.value).endswith("/")
                by_hand = isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant) and not is_share
                if by_hand and _PLURAL_BEHIND_A_NUMBER.match(str(text.value)):
                    yield node.lineno


def test_search_finds_plural_written_by_hand() -> None:
    assert list(_written_by_hand('f"{len(found)} partitions are there"')) == [1]
    assert not list(_written_by_hand("f\"{counted(3, 'partition')} are there\""))


def test_humanize_is_used_by_every_message() -> None:
    files = [path for path in _ROOT.rglob("*.py") if "testing" not in path.parts]
    assert len(files) > 100
    found = [f"{path.relative_to(_ROOT)}:{line}" for path in files for line in _written_by_hand(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (-3598.8, "?"),
        (0, "0.0s"),
        (12.34, "12.3s"),
        (185, "3m05s"),
        (3720, "1h02m"),
        (172_800, "2d"),
        (176_400, "2d01h"),
        (31_536_000, "365d"),
    ],
)
def test_duration_says_no_hours_where_there_are_none(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said
