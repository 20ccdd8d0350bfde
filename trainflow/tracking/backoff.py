"""How long to wait before a delivery is tried again."""

from __future__ import annotations

from datetime import timedelta

FIRST_SECONDS = 5.0
#: an unreachable server is asked this often at least; each try starts a process that imports MLflow for ~2 s
CAP_SECONDS = 300.0
LONGEST_PAUSE = timedelta(seconds=CAP_SECONDS)


def backoff_seconds(attempts: int) -> float:
    """Seconds to wait after the `attempts`-th failure in a row (1, 2, …): doubles from 5 s, at most 300 s.

    No jitter: one engine has one deliverer, so there is no crowd to spread.
    """
    if attempts < 1:
        raise ValueError(f"backoff_seconds counts failures from 1, not {attempts}")
    doublings = min(attempts - 1, 16)  # far beyond the cap; keeps the power small
    return min(CAP_SECONDS, FIRST_SECONDS * float(2**doublings))
