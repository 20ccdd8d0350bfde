"""How many of what, in words: "1 partition", "2,000 partitions". Every number of things that a person reads goes
through here."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """The number and its noun, which is given as one: `counted(3, "entry")` is "3 entries"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def bytes_text(count: int) -> str:
    """`18 kB`: three digits at the most."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def agreeing(number: int, one: str, many: str) -> str:
    """The word that goes with the number: `agreeing(1, "is", "are")` is "is"."""
    return one if number == 1 else many


def plural(noun: str) -> str:
    """Plural of a regular English noun."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
