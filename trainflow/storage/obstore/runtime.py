"""Where the requests of obstore are made: by threads and forks.

Importing obstore starts no thread, and opening a bucket connects to nothing; the first request starts the threads of
its runtime, of which a process has one for ever. A process that is forked after that can make no request: it hangs. So
who forks makes none, and a forked process is told at once (`usable_here`).

Inside a request no signal of Python is handled: the main thread waits for another one that makes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from trainflow.storage.obstore.errors import StoreRefusal, answer_of

T = TypeVar("T")
#: a signal may be delivered to another thread than the main one, which then handles it when it looks up from waiting
_LOOKS_UP_SECONDS = 0.2


class _Runtime:
    """Whether requests can be made in this process."""

    def __init__(self) -> None:
        self.begun = False
        self.lost = False
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.lost = self.lost or self.begun


_RUNTIME = _Runtime()


def usable_here() -> bool:
    """Whether this process was not forked from one that had made requests."""
    return not _RUNTIME.lost


def _translated(call: Callable[[], T]) -> T:
    import obstore.exceptions

    try:
        return call()
    except StoreRefusal:
        raise
    except (obstore.exceptions.BaseError, FileNotFoundError, ValueError) as error:
        answer = answer_of(error)
    # outside of the handler: as a cause, what obstore says in full would show addresses and signatures
    raise answer


def interruptible(call: Callable[[], T]) -> T:
    """What `call` returns. In the main thread signals are handled meanwhile: what a handler raises is raised at once,
    and the request goes on without being waited for."""
    if _RUNTIME.lost:
        raise RuntimeError("this process was forked from one that had made requests by obstore, and can make none")
    _RUNTIME.begun = True
    if threading.current_thread() is not threading.main_thread():
        return _translated(call)
    answers: list[T] = []
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            answers.append(_translated(call))
        except BaseException as error:
            raised.append(error)
        done.set()

    threading.Thread(target=run, name="store request", daemon=True).start()
    while not done.wait(_LOOKS_UP_SECONDS):
        pass
    if raised:
        raise raised[0]
    return answers[0]
