"""Whether a store can be used, found out before anything is begun: one request, answered within seconds.

A driver's own patience is for work that is under way: S3 tries a dead endpoint for twenty seconds, Azure waits for a
minute without a word. Here each is asked once, for one name below the place, and what it refuses is told at once. A
store that asks for fewer requests is there, and so are a bucket that is empty and a folder that nothing is in yet.

Whether it creates exclusively is noted on this machine, so that it is tried once a day and not by every chain that
begins there. Only what was found well is noted. Without the notes, which lie in the home, a store is tried again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from trainflow.errors import TrainflowError
from trainflow.identifiers import canonical_json
from trainflow.observability.redaction import redact
from trainflow.storage.atomic_files import replace_whole
from trainflow.storage.drivers import (
    PROTOCOLS_ON_THIS_MACHINE,
    SFTP_PROTOCOLS,
    endpoint_of,
    load_driver,
    open_driver,
    protocol_of,
)
from trainflow.storage.errors import Failures, RefusalReason, reason_of
from trainflow.storage.exclusive_creation import probe
from trainflow.storage.store import Store

#: how many times longer a store may take to answer on a machine that is busy
_MOST_SLOWNESS = 5.0


def is_remote(url: str) -> bool:
    """Whether reaching a place takes a request."""
    return protocol_of(url) not in PROTOCOLS_ON_THIS_MACHINE


def answer_seconds(patience: float, taken: float, computed: float) -> float:
    """How long a store may take to answer, `patience` seconds where nothing else is done, where work that took
    `computed` seconds of the processor has taken `taken`: on a machine that is busy a store that is well is asked
    later, and heard later."""
    return patience * min(max(taken / computed, 1.0), _MOST_SLOWNESS) if computed > 0 else patience


def check_reachable(url: str, options: Mapping[str, Any], failures: Failures, seconds: float) -> BaseException | None:
    """Why the place at `url` cannot be used, as it is raised for who opened it; None: it answers, or is on this
    machine. Raises InputError where the driver is not installed."""
    if not is_remote(url):
        return None
    load_driver(url, options)
    answer = _within(seconds, lambda: _ask(url, options, seconds))
    if answer is None or reason_of(answer) is RefusalReason.THROTTLED:
        return None
    if isinstance(answer, TrainflowError):  # of what was written, not of the store
        return answer
    if reason_of(answer) is RefusalReason.BUCKET_MISSING or isinstance(answer, FileNotFoundError):
        return failures.bucket_missing(url, _bucket(url))
    return failures.failure("reach", url, answer)


def _within(seconds: float, ask: Callable[[], None]) -> BaseException | None:
    """What `ask` raises. It goes on in its thread where it does not answer: no driver can be interrupted."""
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            ask()
        except BaseException as error:
            raised.append(error)
        done.set()

    threading.Thread(target=run, name="store check", daemon=True).start()
    if not done.wait(seconds):
        return TimeoutError(
            f"no answer within {seconds:.2g} s; a store that needs longer is given it by the setting "
            "engine.store_check_seconds, and is not asked where that is 0"
        )
    return raised[0] if raised else None


def _ask(url: str, options: Mapping[str, Any], seconds: float) -> None:
    """Ask for one name. Raises what the driver raises."""
    if protocol_of(url) in SFTP_PROTOCOLS:
        from trainflow.storage.sftp import ask_sftp

        ask_sftp(url, options)
        return
    driver, base = open_driver(url, options, quick_seconds=seconds)
    driver.ask(base)


def _bucket(url: str) -> str:
    """The bucket or container in a URL; `container@account` of Azure's long form is the container."""
    return url.rpartition("://")[2].split("/", 1)[0].split("@", 1)[0]


#: how long a note holds
NOTE_AGE = timedelta(days=1)
#: variables by which an account or an endpoint is chosen without an option
_ENVIRONMENT = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN"),
    *("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_CLIENT_ID"),
)


class _Note(msgspec.Struct, frozen=True):
    at: datetime


def identity_of(url: str, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> str:
    """Which store it is, and who asks: a digest of the URL, the endpoint and the account. No secret goes into it."""
    account = {name: environ[name] for name in _ENVIRONMENT if name in environ}
    facts = [url, endpoint_of(options), redact(dict(options)), account]
    return hashlib.sha256(canonical_json(facts)).hexdigest()[:40]


def probe_once_a_day(store: Store, identity: str, notes: Path, now: datetime) -> None:
    """Try a store in the network, unless a note in the folder `notes` is of today; one on this machine each time: that
    costs nothing. Raises as `probe`."""
    note = notes / f"{identity}.json"
    if store.remote and _is_recent(note, now):
        return
    probe(store)
    if store.remote:
        with suppress(OSError):  # then the next chain tries it again
            notes.mkdir(parents=True, exist_ok=True)
            replace_whole(note, msgspec.json.encode(_Note(now)))


def _is_recent(note: Path, now: datetime) -> bool:
    try:
        at = msgspec.json.decode(note.read_bytes(), type=_Note).at
    except (OSError, msgspec.MsgspecError):
        return False
    return at.tzinfo is not None and timedelta(0) <= now - at < NOTE_AGE
