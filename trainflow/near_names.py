"""A hint behind a name that is not known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath


def did_you_mean(name: str, known: Sequence[str], otherwise: str = "there is") -> str:
    """`; did you mean …?`, or what there is, or nothing."""
    import difflib

    # a path is meant where its name is nearly written
    stems = {PurePath(each).stem: each for each in known}
    close = difflib.get_close_matches(name, [*known, *stems], n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{stems.get(close[0], close[0])}'?"
    return f"; {otherwise}: {', '.join(known)}" if known else ""
