"""A stand-in for Ray where it is not installed, for jobs whose folder of modules it is: one node, whose actors are
threads of the job. It has what `trainflow.execution.ranks.ray_placement` uses, and nothing else; what is real of Ray is
tried with a real one (`tests.support.real_ray`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

from ray import exceptions, util

__all__ = ["exceptions", "get", "init", "kill", "remote", "util", "wait"]


def init(**_options: Any) -> None:
    """Connect to the cluster."""


class _Method:
    def __init__(self, threads: ThreadPoolExecutor, method: Callable[..., Any]) -> None:
        self._threads, self._method = threads, method

    def remote(self, *arguments: Any) -> Future[Any]:
        return self._threads.submit(self._method, *arguments)


class _Actor:
    def __init__(self, made: Any, threads: int) -> None:
        self.made = made
        self._threads = ThreadPoolExecutor(threads)

    def __getattr__(self, name: str) -> _Method:
        return _Method(self._threads, getattr(self.made, name))


class _ActorClass:
    def __init__(self, kind: type[Any], max_concurrency: int = 1) -> None:
        self._kind, self._threads = kind, max_concurrency

    def options(self, *, max_concurrency: int = 1, **_options: Any) -> _ActorClass:
        return _ActorClass(self._kind, max_concurrency)

    def remote(self) -> _Actor:
        return _Actor(self._kind(), self._threads)


def remote(kind: type[Any]) -> _ActorClass:
    """Make a class one of actors."""
    return _ActorClass(kind)


def wait(futures: Sequence[Future[Any]], timeout: float | None = None) -> tuple[list[Any], list[Any]]:
    """Wait for one; those that are done, and the others."""
    done, others = wait_for(futures, timeout, FIRST_COMPLETED)
    return list(done), list(others)


def get(future: Future[Any]) -> Any:
    """The result. Raises what the actor has raised."""
    return future.result()


def kill(actor: _Actor) -> None:
    """End an actor by force."""
    actor.made.stop()
