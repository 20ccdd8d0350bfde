"""Numbers as people read them: how many of what ("1 partition", "2,000 partitions"), bytes, measurements, durations."""

from __future__ import annotations

#: from here on with an exponent: a float holds no more digits
_MOST_WRITTEN_OUT = 1e15


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


def number(value: float) -> str:
    """A measured number with four digits that count; from a thousand on, and where it is whole, with all before the
    point: `0.9812`, `12,570`."""
    if abs(value) < _MOST_WRITTEN_OUT and (abs(value) >= 1000 or float(value).is_integer()):
        return f"{round(value):,}"
    return f"{value:,.4g}"


def percent(done: float, total: float) -> str:
    """How much of it is done: `99%` until all of it is, and never more than `100%`."""
    # 0.29 * 100 is less than 29
    return f"{int(min(1.0, done / total) * 100 + 1e-9)}%"


def duration(seconds: float | None) -> str:
    """`1h02m`, `3m05s`, `12.3s`, `45d`, `2d01h`; `?` for what ended before it began: the clock was set back."""
    if seconds is None:
        return ""
    if seconds < 0:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h" if hours else f"{days}d"
