"""What the help of a command says its JSON holds, read so that a test can compare it with what it prints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: key → what it holds: None (nothing said), or the keys of the section(s) in it
Keys = dict[str, Any]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def documented(help_text: str, others: Mapping[str, Keys]) -> Keys | None:
    """The keys behind "JSON:"; `others`: those of the commands that it may refer to. None where nothing is said."""
    found = re.search(r"JSON: (.*?)(?:\n\s*\n|\Z)", help_text, re.DOTALL)
    if found is None:
        return None
    text = " ".join(found[1].split())
    keys: Keys = {}
    for name in re.findall(r"the keys of `([^`]+)`", text):
        keys |= others[name]
    begins = text.find("{")
    if begins >= 0:
        keys |= _Reader(text[begins:]).section()
    if "also stand at the top" in text:
        for inner in [each for each in keys.values() if each is not None]:
            keys = {**inner, **keys}
    return keys


class _Reader:
    """Reads `{a, b (a comment), c: {d}, e: [{f}] or null}`; whatever is no name, brace or bracket is a comment."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def section(self) -> Keys:
        self._take("{")
        keys: Keys = {}
        while not self._next("}"):
            name = _WORD.match(self._text, self._at)
            assert name is not None, f"a name is expected at {self._text[self._at : self._at + 40]!r}"
            self._at = name.end()
            keys[name[0]] = self._value() if self._next(":") else None
            self._comment()
        return keys

    def _value(self) -> Keys | None:
        self._spaces()
        if self._next("["):
            inner = self._value()
            self._take("]")
            return inner
        return self.section() if self._text[self._at] == "{" else None

    def _comment(self) -> None:
        """Up to the comma or the brace that ends this key."""
        depth = 0
        while depth or self._text[self._at] not in ",}":
            depth += {"(": 1, ")": -1}.get(self._text[self._at], 0)
            self._at += 1
        self._next(",")
        self._spaces()

    def _spaces(self) -> None:
        while self._at < len(self._text) and self._text[self._at] == " ":
            self._at += 1

    def _next(self, sign: str) -> bool:
        if self._text[self._at] != sign:
            return False
        self._at += 1
        return True

    def _take(self, sign: str) -> None:
        assert self._next(sign), f"{sign!r} is expected at {self._text[self._at : self._at + 40]!r}"


def differences(keys: Keys, printed: Any, where: str = "") -> list[str]:
    """What is printed and not documented, or the reverse. Lists are looked at row by row; an empty one says nothing."""
    if isinstance(printed, list):
        return [each for row in printed for each in differences(keys, row, where)]
    if not isinstance(printed, dict):
        return []
    found = [f"{where}{name}: printed, not documented" for name in printed if name not in keys]
    found += [f"{where}{name}: documented, not printed" for name in keys if name not in printed]
    for name, inner in keys.items():
        if inner is not None and name in printed:
            found += differences(inner, printed[name], f"{where}{name}.")
    return found
