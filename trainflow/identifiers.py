"""Names: which strings may name a thing, names that are pure functions of what they name, and which known name one that
is not known is near to."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from trainflow.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,249}")
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_ATTEMPT_ID_LENGTH = 26


def check_name(name: str, what: str) -> str:
    """`name` if it can name a `what` (letters, digits, `_ - .`, at most 250); raises InputError otherwise."""
    if not isinstance(name, str) or not is_name(name):
        raise InputError(
            f"{name!r} cannot name a {what}: use letters, digits, '_', '-' and '.', "
            "start with a letter, a digit or '_', at most 250 characters"
        )
    return name


def is_name(name: str) -> bool:
    """Whether `check_name` takes it."""
    return _NAME.fullmatch(name) is not None


def new_attempt_id(now: datetime) -> str:
    """A name no other attempt ever has: 48 bits of milliseconds, then 80 random bits, base 32; sorts by time."""
    value = (int(now.timestamp() * 1000) << 80) | int.from_bytes(os.urandom(10))
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def earliest_attempt_id(moment: datetime) -> str:
    """The name before which no attempt of this moment, or of a later one, sorts."""
    value = int(moment.timestamp() * 1000) << 80
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def chain_dag_id(pipeline: str, stage: str, branch: str) -> str:
    """The DAG that a pipeline file makes of one chain: that of stage and branch `main` is named as the pipeline."""
    if branch != "main":
        return f"{pipeline}.{stage}.{branch}"
    return pipeline if stage == "main" else f"{pipeline}.{stage}"


def attempt_time(name: str) -> datetime | None:
    """When an attempt id was made (aware UTC); None for a name that is no attempt id."""
    if len(name) != _ATTEMPT_ID_LENGTH or any(letter not in _CROCKFORD for letter in name):
        return None
    value = 0
    for letter in name:
        value = value << 5 | _CROCKFORD.index(letter)
    try:
        return datetime.fromtimestamp((value >> 80) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def triggered_run_id(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """The run id of the successor: a pure function of the parent, so that a retry names the same run."""
    key = canonical_json([dag_id, run_id, task_id, map_index])
    return f"operator_triggered__{hashlib.sha256(key).hexdigest()[:20]}"


def manual_run_id(run_after: datetime, discriminator: str) -> str:
    """`manual__<time>_<discriminator>`, as Airflow names runs without a logical date."""
    return f"manual__{run_after.isoformat(timespec='seconds')}_{discriminator}"


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: sorted keys, no spaces, UTF-8. Raises TypeError for what JSON has no form for."""
    return _CANONICAL.encode(value).encode()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(data: bytes) -> str:
    """`sha256:<hex>` of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def did_you_mean(name: str, known: Sequence[str], otherwise: str = "there is") -> str:
    """`; did you mean …?`, or what there is, or nothing."""
    import difflib

    # a path is meant where its name is nearly written
    stems = {PurePath(each).stem: each for each in known}
    close = difflib.get_close_matches(name, [*known, *stems], n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{stems.get(close[0], close[0])}'?"
    return f"; {otherwise}: {', '.join(known)}" if known else ""
