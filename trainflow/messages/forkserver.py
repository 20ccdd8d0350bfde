"""Executor ⇄ its warm worker: the process that has imported what pipelines import and forks one child an attempt."""

from __future__ import annotations

import msgspec

from trainflow.messages.execution_api import Started
from trainflow.messages.workload import AttemptKey, ExecuteTask, ParseFile, ParseResult, ProcessIdentity


class Launch(msgspec.Struct, frozen=True, tag="launch"):
    """Fork a child for this attempt. `warm_up`: then import, while there is nothing else to do, what this task imports:
    its later attempts find it imported."""

    workload: ExecuteTask
    warm_up: bool = True


class Given(msgspec.Struct, frozen=True, tag="given"):
    """A child that waited was given this attempt. `warm_up`: see `Launch`."""

    workload: ExecuteTask
    pid: int
    warm_up: bool = True


class ToWaiting(msgspec.Struct, frozen=True):
    """What a child that waits is given. `started`: the answer to its claim, where the attempt was claimed for it."""

    workload: ExecuteTask
    started: Started | None = None


class Parse(msgspec.Struct, frozen=True, tag="parse"):
    """Fork a child that imports this file; what becomes of it is said on the descriptor sent along (`FromParser`).

    `load`: attempts of the file will follow; where the child got through it, load it here as well.
    """

    request: ParseFile
    load: bool = False


class ChildWaits(msgspec.Struct, frozen=True, tag="child_waits"):
    """A child was forked ahead, and waits for an attempt: `ToWaiting` on the descriptor that comes along."""

    process: ProcessIdentity


class Unused(msgspec.Struct, frozen=True, tag="unused"):
    """A child that waited ends, and runs nothing, whatever it was given. `changed`: because this file, which it has
    imported, is another one on disk since."""

    pid: int
    changed: str | None = None


class Launched(msgspec.Struct, frozen=True, tag="launched"):
    """The child is there."""

    key: AttemptKey
    pid: int


class NotLaunched(msgspec.Struct, frozen=True, tag="not_launched"):
    """The system gave no process for this attempt. `reason`: one clause, for people."""

    key: AttemptKey
    reason: str


class Stale(msgspec.Struct, frozen=True, tag="stale"):
    """What was imported has changed on disk since: this worker cannot serve the request, a new one can.

    `key`: the attempt that was to be launched; None when a file was to be parsed (its descriptor was closed).
    """

    changed: str
    key: AttemptKey | None = None


class Threaded(msgspec.Struct, frozen=True, tag="threaded"):
    """What this worker has imported has started threads: it forks no attempt any more.

    `path`: the pipeline file whose imports did it; None: they are there whatever is imported. `how`: one clause, for
    people. `key`: the attempt that was to be launched; None when nothing was asked for.
    """

    path: str | None
    how: str
    key: AttemptKey | None = None


class ChildEnded(msgspec.Struct, frozen=True, tag="child_ended"):
    """A child ended. `code` or `signal`.

    `left`: processes that lost their parent with it; all of what it had started and its children had.
    """

    pid: int
    code: int | None = None
    signal: int | None = None
    left: list[int] = []


class ParseStarted(msgspec.Struct, frozen=True, tag="reading"):
    """A child has begun to read a file."""

    pid: int


ToWorker = Launch | Given | Parse
FromWorker = ChildWaits | Unused | Launched | NotLaunched | Stale | Threaded | ChildEnded
#: about one file, in this order: the child says that it begins and what came out; the worker says how the child ended.
#: A line that ends before that was lost with the worker
FromParser = ParseStarted | ParseResult | ChildEnded
