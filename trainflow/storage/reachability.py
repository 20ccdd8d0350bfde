"""Whether a store can be used at all, found out before anything is begun: one request, answered within seconds.

A driver's own patience is for work that is under way: S3 tries a dead endpoint for twenty seconds, Azure waits for a
minute without a word. Here each is asked once, for one name below the place, and what it refuses is told at once. A
store that asks for fewer requests is there, and so are a bucket that is empty and a folder that nothing is in yet.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from trainflow.storage.drivers import (
    EXTRAS,
    PROTOCOLS_ON_THIS_MACHINE,
    SFTP_PROTOCOLS,
    driver_of,
    load_driver,
    open_filesystem,
    protocol_of,
)
from trainflow.storage.errors import Failures
from trainflow.storage.reasons import RefusalReason, reason_of

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
    driver = driver_of(url)
    if protocol_of(url) in SFTP_PROTOCOLS:
        from trainflow.storage.sftp_connection import SFTPConnection

        connection = SFTPConnection(url, options)
        connection.call(lambda client: client.exists("/"), again=False)
        connection.close()
        return
    filesystem, base = open_filesystem(url, _once(driver, options, seconds))
    bucket, _, prefix = base.strip("/").partition("/")
    # credentials may be good for what is below the place and no more: a policy for `folder/*` allows no `folder`
    below = f"{prefix}/" if prefix else ""
    service = EXTRAS.get(driver)
    if service == "s3":
        filesystem.retries = 1
        filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=below, MaxKeys=1)
    elif service == "gcs":
        _ask_gcs(filesystem, bucket, below)
    elif service == "azure":
        _ask_azure(filesystem, bucket, below)
    else:
        filesystem.exists(base)


def _once(driver: str, options: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The options of a client that tries once, beneath those that were given."""
    quick: dict[str, Any] = {"skip_instance_cache": True}
    if EXTRAS.get(driver) == "s3":
        given = options.get("config_kwargs") or {}
        quick["config_kwargs"] = {"retries": {"total_max_attempts": 1}, "connect_timeout": seconds, **given}
        return {**options, **quick}
    return {**quick, **options}


def _ask_gcs(filesystem: Any, bucket: str, prefix: str) -> None:
    from fsspec.asyn import sync

    # the method is wrapped in six tries
    request = inspect.unwrap(type(filesystem)._request)
    sync(filesystem.loop, request, filesystem, "GET", "b/{}/o", bucket, prefix=prefix, maxResults=1)


def _ask_azure(filesystem: Any, container: str, prefix: str) -> None:
    from fsspec.asyn import sync

    async def first_page() -> None:
        client = filesystem.service_client.get_container_client(container)
        pages = client.list_blobs(name_starts_with=prefix, results_per_page=1, retry_total=0).by_page()
        async for _ in pages:
            return

    sync(filesystem.loop, first_page)


def _bucket(url: str) -> str:
    """The bucket or container in a URL; `container@account` of Azure's long form is the container."""
    return url.rpartition("://")[2].split("/", 1)[0].split("@", 1)[0]
