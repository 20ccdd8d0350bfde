"""The rule which attempts are forked from a warm worker, and which run in an interpreter of their own. Pure."""

from __future__ import annotations

from collections import Counter

#: a warm worker that dies this often with nothing to do will not get better
HOPELESS_DEATHS = 5
#: a file at which the warm worker has died this often is run in a fresh interpreter: it harms only itself there
DISTRUSTED_DEATHS = 2


def may_fork(path: str, history: CrashHistory, *, as_set: bool, alone: bool) -> bool:
    """Whether an attempt of this pipeline file is forked: settings want it (`as_set`), it did not hang when it was
    forked before (`alone`), and the imports of the file neither start threads nor kill warm workers."""
    return as_set and not alone and not history.distrusts(path)


class CrashHistory:
    """What warm workers suffered from lately: a pipeline file that kills them or starts threads in them, or
    themselves."""

    def __init__(self) -> None:
        self._idle_deaths = 0
        #: path of a pipeline file → how often the worker died while it was to launch an attempt of it
        self._deaths_at: Counter[str] = Counter()
        #: pipeline files whose imports start threads
        self._threaded: set[str] = set()
        #: threads are there whatever is imported
        self._always_threads = False

    def died(self, at: str | None) -> None:
        """A worker died by itself, while it was at this file (None: it had nothing to launch)."""
        if at is None:
            self._idle_deaths += 1
        else:
            self._deaths_at[at] += 1

    def launched(self, path: str | None) -> None:
        """A worker got so far as to launch an attempt, of this file if that is known."""
        self._idle_deaths = 0
        if path is not None:
            self._deaths_at.pop(path, None)

    def threads(self, path: str | None) -> bool:
        """The imports of this file start threads (None: there are some whatever is imported). Is that news?"""
        if path is None:
            news, self._always_threads = not self._always_threads, True
            return news
        news = path not in self._threaded
        self._threaded.add(path)
        return news

    def files_changed(self) -> None:
        """Forget what was wrong with files: it may be right now."""
        self._deaths_at.clear()
        self._threaded.clear()

    def distrusts(self, path: str) -> bool:
        """Whether this file is better loaded where it harms only itself."""
        return self._always_threads or path in self._threaded or self._deaths_at[path] >= DISTRUSTED_DEATHS

    @property
    def hopeless(self) -> bool:
        """Will another worker do no better?"""
        return self._idle_deaths > HOPELESS_DEATHS
