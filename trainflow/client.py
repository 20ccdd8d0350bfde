"""A client of the API server: for programs that trigger, wait, look at chains, and take checkpoints out.

The standard library and msgspec, nothing else of trainflow but its errors: it is at home in a serving process.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from trainflow.errors import ArtifactCorrupt, InputError, TrainflowError

#: where the server is and what is shown to it, unless it is said
URL_VARIABLE, TOKEN_VARIABLE = "TRAINFLOW_URL", "TRAINFLOW_TOKEN"
_LOCAL = "http://127.0.0.1:8080"
#: a request that reached nothing is sent again so often: each may be, without being done twice
_TRIES, _PAUSE_SECONDS = 4, 0.25
_CHUNK = 1 << 20
#: entries of a list that are asked for at a time
_PAGE = 1000
#: of a request with the same key that is being answered
_STILL_AT_WORK = "StillAtWork"

T = TypeVar("T")


class ApiRefused(TrainflowError):
    """The server answered with a problem. Attributes: status, title, what_to_do."""

    def __init__(self, message: str, *, status: int, title: str, what_to_do: str) -> None:
        super().__init__(message)
        self.status, self.title, self.what_to_do = status, title, what_to_do


class ServerUnreachable(TrainflowError, ConnectionError):
    """The server cannot be reached."""


class DagInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A DAG. `chain`: pipeline/stage/branch; None: it trains none."""

    dag_id: str
    is_paused: bool
    description: str | None = None
    chain: str | None = None


class RemoteRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run; `duration` in seconds, None while it has not ended."""

    dag_id: str
    run_id: str = msgspec.field(name="dag_run_id")
    number: int
    state: str
    conf: dict[str, Any]
    run_after: datetime
    start_date: datetime | None = None
    end_date: datetime | None = None
    duration: float | None = None
    note: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it is a success, or has failed."""
        return self.state in ("success", "failed")


class ChainInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where a chain is. `lag`: partitions that are ready beyond its head; `stopped`: what gates have against the
    checkpoint that they refused; `why`: why nothing is training, or what is, in a sentence."""

    pipeline: str
    stage: str
    branch: str
    dag_id: str
    head_number: int | None
    watermark: datetime | None
    lag: int | None
    lag_seconds: float | None
    holes: int | None
    stopped: list[str]
    problem: str | None
    why: str


class FileInfo(msgspec.Struct, frozen=True):
    """A file of a checkpoint; `sha256` is `sha256:<hex>`."""

    path: str
    size: int
    sha256: str


class _Files(msgspec.Struct, frozen=True, kw_only=True):
    pipeline: str
    stage: str
    branch: str
    number: int
    id: str
    size: int
    files: list[FileInfo]


class RemoteCheckpoint:
    """A checkpoint of a chain: which it is, what it consists of, and the way to its files."""

    def __init__(self, client: Client, found: _Files) -> None:
        self._client = client
        self.pipeline, self.stage, self.branch = found.pipeline, found.stage, found.branch
        self.number, self.id, self.size = found.number, found.id, found.size
        self.files = found.files

    def __repr__(self) -> str:
        return f"RemoteCheckpoint({self.chain!r}, number={self.number}, id={self.id!r}, size={self.size})"

    @property
    def chain(self) -> str:
        """The chain that it is of: pipeline/stage/branch."""
        return f"{self.pipeline}/{self.stage}/{self.branch}"

    def download(self, folder: Path | str) -> Path:
        """Copy all files into a folder that is empty or not there yet, each with the digest that was committed: all of
        them, or nothing. A file whose connection is cut off is gone on with where it was. Raises InputError,
        ArtifactCorrupt, ApiRefused, ServerUnreachable."""
        target = Path(folder).absolute()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{target} is not empty: name a folder that is, or that is not there yet")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            for file in self.files:
                self._fetch(file, partial / file.path)
            partial.mkdir(exist_ok=True)
            if target.exists():
                target.rmdir()
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _fetch(self, file: FileInfo, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = f"{_chain_path(self.chain)}/checkpoints/{self.id}/files/{quote(file.path)}"
        digest, received = hashlib.sha256(), 0
        with path.open("wb") as copy:
            for chunk in self._client._download(place, f'"{file.sha256}"', file.size):
                digest.update(chunk)
                copy.write(chunk)
                received += len(chunk)
        if received != file.size or f"sha256:{digest.hexdigest()}" != file.sha256:
            which = f"{file.path} of checkpoint {self.number} ({self.id})"
            raise ArtifactCorrupt(f"{which} is not what was committed", location=place)


class Client:
    """A client. `url`: of the server, by default that of TRAINFLOW_URL or of this host; `token`: by default that of
    TRAINFLOW_TOKEN; `timeout_seconds`: for each answer. Fit for several threads."""

    def __init__(self, url: str | None = None, token: str | None = None, *, timeout_seconds: float = 30.0) -> None:
        self.url = (url or os.environ.get(URL_VARIABLE) or _LOCAL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"{self.url} does not begin with http:// or https://")
        self._token = token or os.environ.get(TOKEN_VARIABLE)
        self._timeout = timeout_seconds

    # -- DAGs and runs -------------------------------------------------------------------------------------------------

    def dags(self) -> list[DagInfo]:
        """All DAGs, by id."""
        found: list[DagInfo] = []
        while True:
            page = self.get("/dags", limit=_PAGE, offset=len(found))
            found += self._convert(page["dags"], list[DagInfo])
            if not page["dags"] or len(found) >= page["total_entries"]:
                return found

    def pause(self, dag_id: str, *, paused: bool = True) -> DagInfo:
        """Start nothing of a DAG any more, or again."""
        return self._convert(self.send("PATCH", f"/dags/{_name(dag_id)}", {"is_paused": paused}), DagInfo)

    def trigger(
        self, dag_id: str, conf: dict[str, Any] | None = None, *, run_id: str | None = None, note: str | None = None
    ) -> RemoteRun:
        """Queue a run; sent again after a lost connection, it is queued once all the same."""
        body = {"conf": conf or {}, "dag_run_id": run_id, "note": note}
        return self._convert(self.send("POST", f"/dags/{_name(dag_id)}/dagRuns", body), RemoteRun)

    def run(self, dag_id: str, run_id: str) -> RemoteRun:
        """A run as it is now."""
        return self._convert(self.get(f"/dags/{_name(dag_id)}/dagRuns/{_name(run_id)}"), RemoteRun)

    def runs(self, dag_id: str | None = None, *, state: str | None = None) -> Iterator[RemoteRun]:
        """The runs of a DAG, or of all, oldest first; read page by page."""
        path, cursor = f"/dags/{_name(dag_id or '~')}/dagRuns", ""
        while cursor is not None:
            page = self.get(path, cursor=cursor, limit=200, state=state)
            yield from self._convert(page["dag_runs"], list[RemoteRun])
            cursor = page["next_cursor"]

    def wait(self, run: RemoteRun, *, timeout_seconds: float | None = None, interval_seconds: float = 2.0) -> RemoteRun:
        """The run once it has ended; the server may be away meanwhile. Raises TimeoutError."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            try:
                run = self.run(run.dag_id, run.run_id)
            except ServerUnreachable:
                if deadline is None:
                    time.sleep(interval_seconds)
                    continue
            if run.has_ended:
                return run
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"run {run.run_id} of {run.dag_id} is {run.state} after {timeout_seconds:g} s")
            time.sleep(interval_seconds)

    # -- chains --------------------------------------------------------------------------------------------------------

    def chains(self) -> list[ChainInfo]:
        """All chains: where each is, and why nothing is training, or what is."""
        return self._convert(self.get("/chains")["chains"], list[ChainInfo])

    def chain(self, name: str) -> ChainInfo:
        """One of them, by pipeline, pipeline/stage or pipeline/stage/branch."""
        return self._convert(self.get(_chain_path(name)), ChainInfo)

    def checkpoint(self, name: str, *, alias: str | None = None, number: int | None = None) -> RemoteCheckpoint:
        """A checkpoint of a chain: the one of an alias or of a number, else the head."""
        if alias is not None and number is not None:
            raise InputError("alias and number exclude each other: both name a checkpoint")
        which = f"@{alias}" if alias is not None else "head" if number is None else str(number)
        found = self.get(f"{_chain_path(name)}/checkpoints/{_name(which)}/files")
        return RemoteCheckpoint(self, self._convert(found, _Files))

    # -- requests ------------------------------------------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a question below /api/v1, as JSON has it. Raises ApiRefused, ServerUnreachable."""
        given = {name: value for name, value in query.items() if value is not None}
        return msgspec.json.decode(
            self._tried("GET", f"{path}?{urlencode(given, doseq=True)}" if given else path, _content)
        )

    def send(self, method: str, path: str, body: Any) -> Any:
        """The answer to something that is to be done, once however often it has to be sent. Raises as `get` does."""
        content = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
        headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
        data = self._tried(method, path, _content, content, headers)
        return msgspec.json.decode(data) if data else None

    def _tried(
        self,
        method: str,
        path: str,
        take: Callable[[http.client.HTTPResponse], T],
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> T:
        """What `take` makes of the answer; asked again where that does not come, or is cut off on its way."""
        given = {"Accept": "application/json", **(headers or {})}
        if self._token is not None:
            given["Authorization"] = f"Bearer {self._token}"
        for number in range(1, _TRIES + 1):
            request = urllib.request.Request(f"{self.url}/api/v1{path}", body, given, method=method)
            try:
                return take(urllib.request.urlopen(request, timeout=self._timeout))
            except urllib.error.HTTPError as error:
                refused = _refused(error, self.url)
                # the request before may be done still, whose answer did not come in time
                again = error.code == 503 or refused.title == _STILL_AT_WORK
                if not again or number == _TRIES:
                    raise refused from None
            except (OSError, http.client.HTTPException) as error:
                if number == _TRIES:
                    raise ServerUnreachable(
                        f"{self.url} cannot be reached: {error}. 'trainflow ui' in the project serves it, and "
                        "'trainflow standalone' does; another address is named by url=… or TRAINFLOW_URL"
                    ) from error
            time.sleep(_PAUSE_SECONDS * 2**number)
        raise AssertionError("unreachable")

    def _download(self, path: str, etag: str, size: int) -> Iterator[bytes]:
        """The content of a file of `size` bytes that never changes. Where a connection is cut off, the rest is asked
        for: as long as more comes, and four times where nothing does."""
        position, tries = 0, 0
        while True:
            rest = {"Range": f"bytes={position}-", "If-Range": etag} if position else {}
            before = position
            with self._tried("GET", path, _opened, headers={"Accept": "*/*", **rest}) as answer:
                if position and answer.status != 206:
                    raise ArtifactCorrupt("the file has changed while it was downloaded", location=path)
                try:
                    while chunk := answer.read1(_CHUNK):
                        position += len(chunk)
                        yield chunk
                    cut: Exception = http.client.IncompleteRead(b"", size - position)
                except (OSError, http.client.HTTPException) as error:
                    cut = error
            if position >= size:
                return
            tries = 1 if position > before else tries + 1
            if tries == _TRIES:
                raise ServerUnreachable(f"{self.url}{path} is cut off after {position:,} bytes: {cut}") from cut
            time.sleep(_PAUSE_SECONDS * 2**tries)

    def _convert(self, value: Any, type_: type[T]) -> T:
        return msgspec.convert(value, type_)


def _content(answer: http.client.HTTPResponse) -> bytes:
    with answer:
        return answer.read()


def _opened(answer: http.client.HTTPResponse) -> http.client.HTTPResponse:
    return answer


def _refused(error: urllib.error.HTTPError, url: str) -> ApiRefused:
    """What the server at `url` said of a request that it did not answer."""
    with error:
        try:
            problem = msgspec.json.decode(error.read())
            said = problem["title"], problem["detail"], problem["what_to_do"]
        except (msgspec.DecodeError, KeyError, TypeError, OSError):
            said = "NoProblem", f"{error.code} {error.reason}, of {error.url}", "is that the API server?"
    title, detail, what_to_do = said
    return ApiRefused(f"{url} says: {detail} ({what_to_do})", status=error.code, title=title, what_to_do=what_to_do)


def _name(text: str) -> str:
    return quote(text, safe="~")


def _chain_path(name: str) -> str:
    parts = name.split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise InputError(f"'{name}' names no chain: write pipeline, pipeline/stage or pipeline/stage/branch")
    return "/chains/" + "/".join(_name(part) for part in [*parts, *["main"] * (3 - len(parts))])
